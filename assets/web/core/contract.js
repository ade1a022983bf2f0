// Made of loopviz/app/contract/ by scripts/contract.py: change it there.

export const OPS = { set: 0, append: 1, splice: 2 };
export const SMALL_DRAWS = ["bar", "heatmap", "scatter"];
export const RECORDED = "recorded";
export const PAGES = { learn: "./learn", explore: "./", anatomy: "./anatomy", ttt: "./ttt", compare: "./compare", lab: "./lab" };
export const QUERIES = { link: "s", lang: "lang", task: "task", lesson: "lesson", name: "name", token: "token", layer: "layer", step: "step", stage: "stage", beside: "beside", look: "__theme" };
export const TAKEN = "run";
export const OWN_LESSON = "own";
export const CHECK = "check";
export const FOOTER = "lv-foot";
export const STORED = { lang: "loopviz.lang", dark: "loopviz.dark", panels: "loopviz.panels", group: "loopviz.group", speed: "loopviz.speed", tour: "loopviz.tour", lessons: "loopviz.lessons", student: "loopviz.student" };
export const FILES = "loopviz-share";
export const TICKET_HEADER = "x-loopviz-visit";
export const MOST_PINS = 6;
export const USUAL_PRESET = "one_slot";
export const DIALS = ["loop_count", "max_loop_count", "loop_damping"];
export const CURVES = ["convergence", "loops", "kv"];
export const TABLE_GROUPS = ["buys", "costs", "ran"];
export const TABLE_FILES = ["csv", "parquet", "json"];
export const PANEL_FILES = ["csv", "parquet"];
export const ANSWER_FILES = ["csv", "json"];
export const MOST_STUDENT = 80;
export const LONGEST_LESSON = 60000;
export const ARROW_TASK = { model: "arrows-loop", nodes: 16, arrows: 12, hops: 8 };
export const MOST_SLUG = 60;
export const ELEMENTS = { prompt: "ctl-prompt", run: "lv-run", stop: "lv-stop", buttons: "lv-buttons", page: "lv-page", settings: "lv-settings", model: "lv-group-model", dark: "lv-dark", learn: "lv-learn", formulas: "lv-formulas", formula: "lv-formula-", control: "ctl-" };
export const CLASSES = { example: "lv-example", preset: "lv-preset", drop: "lv-drop", opens: "lv-drop-open", refused: "lv-refused", learn: "lv-learn" };
