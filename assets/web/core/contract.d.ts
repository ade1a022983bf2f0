// Made of loopviz/app/contract/ by scripts/contract.py: change it there.

export const OPS: { readonly set: 0; readonly append: 1; readonly splice: 2; };
export const SMALL_DRAWS: readonly ["bar", "heatmap", "scatter"];
export const RECORDED: "recorded";
export const PAGES: { readonly learn: "./learn"; readonly explore: "./"; readonly anatomy: "./anatomy"; readonly ttt: "./ttt"; readonly compare: "./compare"; readonly lab: "./lab"; readonly teach: "./teach"; };
export const QUERIES: { readonly link: "s"; readonly lang: "lang"; readonly run: "run"; readonly class: "class"; readonly task: "task"; readonly lesson: "lesson"; readonly name: "name"; readonly token: "token"; readonly layer: "layer"; readonly step: "step"; readonly stage: "stage"; readonly beside: "beside"; readonly look: "__theme"; };
export const TAKEN: "run";
export const OWN_LESSON: "own";
export const CHECK: "check";
export const FOOTER: "lv-foot";
export const STORED: { readonly lang: "loopviz.lang"; readonly dark: "loopviz.dark"; readonly panels: "loopviz.panels"; readonly group: "loopviz.group"; readonly speed: "loopviz.speed"; readonly tour: "loopviz.tour"; readonly lessons: "loopviz.lessons"; readonly student: "loopviz.student"; readonly visitor: "loopviz.visitor"; readonly class: "loopviz.class"; readonly form: "loopviz.form"; readonly owner: "loopviz.owner"; readonly handed: "loopviz.handed"; };
export const FILES: "loopviz-share";
export const STORE: "loopviz-store";
export const TEACHER: "teacher";
export const TICKET_HEADER: "x-loopviz-visit";
export const MOST_PINS: 6;
export const USUAL_PRESET: "one_slot";
export const DIALS: readonly ["loop_count", "max_loop_count", "loop_damping"];
export const CURVES: readonly ["convergence", "loops", "kv"];
export const TABLE_GROUPS: readonly ["buys", "costs", "ran"];
export const TABLE_FILES: readonly ["csv", "parquet", "json"];
export const PANEL_FILES: readonly ["csv", "parquet"];
export const ANSWER_FILES: readonly ["csv", "json"];
export const MOST_STUDENT: 80;
export const LONGEST_LESSON: 60000;
export const ARROW_TASK: { readonly model: "arrows-loop"; readonly nodes: 16; readonly arrows: 12; readonly hops: 8; };
export const MOST_SLUG: 60;
export const ELEMENTS: { readonly prompt: "ctl-prompt"; readonly run: "lv-run"; readonly stop: "lv-stop"; readonly buttons: "lv-buttons"; readonly page: "lv-page"; readonly settings: "lv-settings"; readonly model: "lv-group-model"; readonly dark: "lv-dark"; readonly learn: "lv-learn"; readonly tries: "lv-try"; readonly ways: "lv-ways"; readonly control: "ctl-"; };
export const CLASSES: { readonly example: "lv-example"; readonly preset: "lv-preset"; readonly drop: "lv-drop"; readonly opens: "lv-drop-open"; readonly refused: "lv-refused"; readonly learn: "lv-learn"; };

export type Lang = "en" | "zh";
export type Row = Record<string, any>;
export type TokenRow = [string, number[], string[], 0 | 1, number | null, number | null, number | null];
export type Pieces = (string | string[])[];
export type Values = Record<string, boolean | number | string>;
export type TTTWord = [string, 0 | 1, number | null];

/** The runs are made first and shown without their names, in an order of chance: which one is `find`? */
export interface BlindPrediction {
  kind: "blind";
  runs: string[];
  find: string;
}

/** One of the answers offered. */
export interface Choice {
  text: Words;
  value?: boolean | number | string;
  low?: number;
  high?: number;
}

/** One of two to five answers. */
export interface ChoicePrediction {
  kind: "choice";
  choices: Choice[];
  right: Right;
}

/** A lesson. */
export interface Lesson {
  format: 1;
  id: string;
  version: number;
  title: Words;
  about: Words;
  minutes: number;
  model: string;
  steps: LessonStep[];
}

/** Something measured of a run (see :data:`loopviz.lessons.measurements.MEASUREMENTS`). */
export interface LessonMeasure {
  what: "text" | "answer" | "guess" | "guesses" | "settles" | "lost" | "loops" | "mean_loops" | "hardest_word" | "chance" | "change" | "kl" | "perplexity" | "best_loop" | "same_text" | "orbit" | "memory" | "cell";
  run: string;
  word?: string;
  nth?: number;
  loop?: number;
  other?: string;
  column?: string;
  row?: Record<string, any>;
  called?: Words;
}

/** A run. What is not said of its loop stays as the model has it. */
export interface LessonRun {
  prompt: string;
  called?: Words;
  model?: string;
  loop?: Record<string, any>;
  sampling?: Sampling;
  task?: string;
  params?: Record<string, any>;
}

/** A question, and what answers it. */
export interface LessonStep {
  runs: Record<string, LessonRun>;
  measure: Record<string, LessonMeasure>;
  show?: string[];
  id: string;
  question: Words;
  predict: ChoicePrediction | NumberPrediction | LinePrediction | BlindPrediction;
  why: Words;
  about?: Words;
  picture?: "arrow_graph";
  what_if?: WhatIf;
  notes?: Words;
}

/** A line drawn over the loops, to be held against a measured curve. */
export interface LinePrediction {
  kind: "line";
  of: string;
  loops: number;
  low: number;
  high: number;
  scale: "linear" | "log";
  axis: Words;
}

/** A number; right where it is no further than `near` from what was measured. */
export interface NumberPrediction {
  kind: "number";
  of: string;
  low: number;
  high: number;
  step: number;
  near: number;
  unit: Words;
}

/** How the right choice follows from what was measured. `value`: the choice whose `value` it is. `between`: the choice between whose `low` and `high` it lies, both included. `largest`, `smallest`: the choice whose `value` is the name of the largest, or smallest, of several. */
export interface Right {
  rule: "value" | "between" | "largest" | "smallest";
  of: string[];
}

/** How a prompt is continued, as in :class:`loopviz.engine.StreamSettings`, but for one new token where nothing is said. */
export interface Sampling {
  max_new_tokens?: number;
  do_sample?: boolean;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  repetition_penalty?: number;
  seed?: number;
  chat?: boolean;
  template?: "none" | "chat" | "alpaca" | "vicuna";
  input?: string;
}

/** The same with something changed. */
export interface WhatIf {
  runs: Record<string, LessonRun>;
  measure: Record<string, LessonMeasure>;
  show?: string[];
  ask: Words;
  says: Words;
}

/** A sentence, in each language of the page. */
export interface Words {
  en: string;
  zh: string;
}

/** A figure as plain Plotly data. */
export interface Figure {
  data: Record<string, any>[];
  layout: Record<string, any>;
}

/** Plotly's templates, by look. */
export interface Templates {
  light: Record<string, any>;
  dark: Record<string, any>;
}

/** Where a visitor looks: :class:`loopviz.panels.Focus`; a page's script knows what it has been told. */
export interface Focus {
  token?: number | null;
  block?: number;
  step?: number | null;
  metric?: "cosine" | "kl" | "rel_delta" | "contraction" | "entropy" | "rank" | "norm";
  lang?: "en" | "zh";
  pins?: number[];
  layer?: number | null;
  lens?: "direct" | "exit" | null;
  dims?: number;
  context?: number;
  batch?: number;
  threshold?: number | null;
}

/** A button that leads out of what was refused, or lacks: another model, all that is set in another precision, this run with a gate that chooses, a measurement of the Lab, or this run again. */
export interface Act {
  label: string;
  model?: string;
  precision?: string;
  exit_threshold?: number;
  /** of the Lab */
  task?: string;
  /** its fields */
  values?: Record<string, any>;
}

/** What is to be known of a model that is there, or of several. */
export interface Notes {
  count: string;
  about: string;
  said: string[];
}

/** An answer that nobody foresaw: words for the visitor, with a reference to the log. */
export interface Failed {
  kind: "failed";
  state: "failed";
  text: string;
}

/** An answer: the server has no such run (any more). */
export interface Gone {
  kind: "gone";
}

/** What is said besides with whatever a page begins. */
export interface Begun {
  /** a name that this browser has made up, by which its tabs are one visitor in the line */
  visitor?: string;
}

/** Whatever is asked: the language in which an answer is wanted. */
export interface InLanguage {
  lang?: "en" | "zh";
}

/** An answer: it is done. */
export interface Done {
  kind: "ok";
}

/** An answer: a file to keep, its bytes in base64. */
export interface KeptFile {
  kind: "file";
  name: string;
  data: string;
}

/** A question: the table of a run so far, as a file. */
export interface Download {
  run: string | null;
  kind: "csv" | "parquet" | "json";
}

/** A place in our source code. */
export interface Place {
  name: string;
  at: string;
  url: string;
}

/** What a panel says of itself. */
export interface PanelWords {
  name: string;
  title: string;
  question: string;
  how: (string | string[])[];
  units: (string | string[])[];
  source: (string | string[])[];
  /** MathML */
  formula: string;
  no_data: string;
  cost?: string;
  not_recorded?: string;
}

/** A panel that there is. */
export interface PanelEntry {
  name: string;
  /** one of the page's `groups` */
  group: string;
  words: PanelWords;
  /** extras that a run must have recorded */
  needs: string[];
  /** whether it is on until a visitor says otherwise */
  usual: boolean;
  code: Place[];
}

/** What a page is told as its visit begins. */
export interface Visit {
  /** to open files with */
  ticket: string;
  /** bytes of one */
  largest: number;
  /** the model for which a link has set the prompt */
  linked: string;
  /** the model whose settings the form holds */
  suits: string;
  /** days that a run is kept on the server; 0: none is */
  keeps: number;
  /** whether a visitor may make a class folder */
  folders: boolean;
}

/** What a page is told anew whose server was away: its form stays as it is. */
export interface Revisit {
  kind: "visit";
  visit: Visit;
  /** no two are equal */
  id: string;
}

/** The page's words, panels and colours, in one language. */
export interface ExploreConfig {
  kind: "config";
  lang: "en" | "zh";
  texts: Record<string, string>;
  /** of panels: a tab each */
  groups: string[];
  panels: PanelEntry[];
  toolbar: Record<string, string>;
  templates: Templates;
  /** of each of DIALS: its least, its most, and between two values */
  dials: Record<string, number[]>;
  visit?: Visit;
}

/** A line of text; what is shown stays. */
export interface ExploreStatus {
  kind: "status";
  text: string;
  bad: boolean;
  /** of which start */
  n?: number;
  /** nothing more will come of that one */
  over?: boolean;
  /** there was no place to wait in */
  full?: boolean;
  /** the controls are to show what the run was begun with */
  suit?: boolean;
  act?: Act;
  /** by control, what is said there of a refusal */
  beside?: Record<string, string>;
  /** groups of controls in which something is said */
  open?: string[];
  /** what a button says that shortens the prompt */
  keep?: string;
}

/** What might have come after the token held, best first: its text, log p, whether it did come. */
export interface Alternatives {
  token: number;
  said: string;
  rows: ([string, number | null, boolean])[];
}

/** What a word goes through: how many layers, and the first and last of every looped block. */
export interface Stack {
  layers: number;
  blocks: number[][];
}

/** What one word thought loop by loop: :mod:`loopviz.panels.hero.strip`, which says what each is. */
export interface Hero {
  token: number | null;
  lens: "direct" | "exit" | "same";
  silent: string;
  steps: number[];
  says: (string | null)[];
  p: (number | null)[];
  moved: (number | null)[];
  measure: "kl" | "cosine";
  why: string;
  settled: number | null;
  limit: number | null;
  ran: number[][];
  next: string;
}

/** What can be tried from a word: the run up to and with this token, with so many loops. */
export interface Branch {
  token: number;
  loops: number;
}

/** What is said of one word in one block, and what can be tried there. */
export interface Explained {
  token: number;
  block: number;
  text: string;
  branch: Branch | null;
}

/** All that the page shows of a run; begins one, and mends a page that missed something. */
export interface ExploreSnapshot {
  model: string;
  /** settings in a line */
  about: string;
  /** the colour of one loop, of two ..., of those that tokens took */
  palette: (string | null)[];
  /** panels that are on for this run */
  brings: string[];
  kind: "snapshot";
  run: string;
  epoch: number;
  /** frames shown */
  seq: number;
  /** frames there are */
  total: number;
  end: "eos" | "length" | "context" | "stopped" | "time" | "memory" | "error" | null;
  tokens: ([string, number[], string[], 0 | 1, number | null, number | null, number | null])[];
  /** chosen, not read yet */
  next: string | null;
  figures: Record<string, Figure>;
  summaries: Record<string, string>;
  alternatives: Alternatives | null;
  stack: Stack;
  hero: Hero;
  explained: Explained | null;
  prompt_tokens: number;
  /** recorded */
  extras: string[];
  focus: Focus;
  /** of the start that made it */
  n?: number;
  /** of one that has ended: the word to look at, unless the visitor looks at one */
  telling?: number | null;
}

/** Tokens `first` to `last - 1`, by edits of the figures. */
export interface Step {
  first: number;
  last: number;
  tokens: ([string, number[], string[], 0 | 1, number | null, number | null, number | null])[];
  next: string | null;
  ops: Record<string, any[][]>;
  /** of what stands above the panels */
  hero: any[][];
}

/** What a run has brought since the last message. Its title, where that is another now. */
export interface Frames {
  first: number;
  last: number;
  tokens: ([string, number[], string[], 0 | 1, number | null, number | null, number | null])[];
  next: string | null;
  ops: Record<string, any[][]>;
  /** of what stands above the panels */
  hero: any[][];
  kind: "frames";
  run: string;
  /** of the figures: a new one begins whenever the visitor looks elsewhere */
  epoch: number;
  end: "eos" | "length" | "context" | "stopped" | "time" | "memory" | "error" | null;
  summaries?: Record<string, string>;
  model?: string;
  about?: string;
  palette?: (string | null)[];
  brings?: string[];
  /** with the end: the word to look at, unless the visitor looks at one */
  telling?: number | null;
}

/** The word of a link to what is set up, and what is to be said of it; no word where none can be made. */
export interface LinkMade {
  kind: "link";
  /** of which wish */
  n: number;
  word: string | null;
  told: string[];
}

/** What a model brings into the form, or a run whose settings are taken over. */
export interface Brought {
  kind: "brought";
  /** no two are equal */
  id: string;
  model: string;
  changes: Record<string, boolean | number | string>;
  /** what has given way to the model, as it was */
  gave: Record<string, any>;
  /** it takes the place of everything that was set, and a run of it starts */
  whole: boolean;
  prompt?: string;
  /** whose settings these are, if not the model's */
  suits?: string;
}

/** An answer: the way through a finished run, by edits. */
export interface Steps {
  kind: "steps";
  run: string;
  epoch: number;
  steps: Step[];
  /** after the last */
  summaries: Record<string, string>;
}

/** An answer: a run's text as a prompt. */
export interface Prompt {
  kind: "text";
  prompt: string;
}

/** An answer: what a token's state says after each loop of its last block, and what the model said; with probabilities. */
export interface Guesses {
  kind: "guesses";
  run: string;
  token: number;
  /** straight from the state; none of a token that is not there, or did not loop */
  steps: ([string, number | null])[];
  /** by all layers: the word that came */
  said: [string, number | null];
}

/** An answer: the page has everything. */
export interface Current {
  kind: "current";
  run: string;
  seq: number;
  end: "eos" | "length" | "context" | "stopped" | "time" | "memory" | "error" | null;
}

/** An answer: where the model is. */
export interface ModelStatus {
  state: "waiting" | "importing" | "loading" | "ready" | "failed" | "ask";
  text: string;
  lang: "en" | "zh";
  notes?: Notes;
}

/** How runs are looked at: with which panels, from where. Sent inside of other things, as JSON of its own. */
export interface View {
  /** those of the open group that are on: what is drawn */
  panels?: string[];
  /** those of all groups: what is recorded, what a report holds */
  on?: string[];
  focus?: Focus;
}

/** An answer: what is said of a word; None where there is nothing to say. */
export interface Told {
  kind: "told";
  run: string;
  explained: Explained | null;
}

/** What is to be said of the word in focus, or of the newest of those shown? */
export interface Explain {
  run: string | null;
  focus: Focus;
  shown: number | null;
}

/** What does the page lack of a run? */
export interface Resync {
  run: string;
  /** -1: of another run than is shown */
  epoch: number;
  seq: number;
}

/** The run seen from elsewhere. */
export interface Look {
  /** those of the open group that are on: what is drawn */
  panels?: string[];
  /** those of all groups: what is recorded, what a report holds */
  on?: string[];
  focus?: Focus;
  run: string | null;
  epoch: number;
  /** tokens, of a finished run; None: all */
  shown: number | null;
}

/** The way through a finished run; `split`: a step a token. */
export interface Advance {
  run: string | null;
  epoch: number;
  panels: string[];
  focus: Focus;
  from: number;
  to: number | null;
  split: boolean;
}

/** A run goes along to another page. */
export interface Carry {
  run: string | null;
}

/** A run's text to go on from: all of it, or up to and with `token`, and then `piece`. */
export interface TextUntil {
  run: string | null;
  token?: number;
  piece?: string;
}

/** What did a token's state say after each of its loops, and what did the model say then? */
export interface AskGuesses {
  run: string | null;
  token: number;
}

/** Where is the model? Without a name the one that the page began with; without a precision as the server has it. */
export interface AskModel {
  lang: "en" | "zh";
  /** one that failed is tried once more */
  again: boolean;
  /** a link named it, and the visitor has not agreed yet */
  linked: boolean;
  /** it is not wanted (any more) */
  look: boolean;
  model?: string;
  precision?: string;
}

/** A run of what the controls show. */
export interface Start {
  /** a name that this browser has made up, by which its tabs are one visitor in the line */
  visitor?: string;
  /** its number among the page's starts */
  n: number;
  /** View */
  wishes: string;
}

/** Nothing that was begun is wanted any more. */
export interface Halt {
  /** up to which start */
  n: number;
}

/** A text for the prompt. */
export interface Retype {
  prompt: string;
}

/** The settings of a run, or of a model of the list, for the next run. With `token` and `loops`: to go on from the run's text up to and with that token, with so many loops. With `exit_threshold`: a gate chooses what is read out, with that threshold. */
export interface Adopt {
  run?: string | null;
  model?: string;
  token?: number;
  loops?: number;
  exit_threshold?: number;
}

/** A link to what is set up. */
export interface MakeLink {
  n: number;
  run: string | null;
  /** View, or "" */
  view: string;
}

/** What the page opens with. */
export interface Opening {
  config: ExploreConfig;
  snapshot: ExploreSnapshot;
}

/** What a link holds, in words. */
export interface Holds {
  prompt: string | null;
  model: string;
  loop: string | null;
}

/** What a link asks of the page's script. */
export interface OpenedLink {
  /** None: the usual ones; as they are in a group of which none is named */
  panels: string[] | null;
  /** the one to open; None: the page's own choice */
  group: string | null;
  focus: Focus;
  told: string[];
  /** None: the view waits for the visitor's next run */
  snapshot: ExploreSnapshot | null;
  holds: Holds | null;
}

/** What is said of an answer. */
export interface TourTold {
  right: (string | string[])[];
  wrong: (string | string[])[];
}

/** What a step of the tour asks. */
export interface TourQuestion {
  answers: string[];
  /** from 0 */
  right: number;
  /** but for the language: how the run is looked at once one is chosen */
  focus: Focus;
  told: TourTold;
}

/** A step of the tour. */
export interface TourStep {
  key: string;
  /** a CSS selector */
  target: string;
  title: string;
  words: (string | string[])[];
  /** but for the language */
  focus: Focus;
  /** tokens; None: all */
  shown: number | null;
  play: boolean;
  panels: string[];
  asks: TourQuestion | null;
}

/** The tour, in one language. */
export interface Tour {
  steps: TourStep[];
}

/** An entry of the glossary. */
export interface Term {
  key: string;
  name: string;
  plain: string;
  symbols: string;
  /** MathML */
  formula: string;
  see: string[];
}

/** The glossary, in one language. */
export interface Glossary {
  terms: Term[];
}

/** A run is to be kept. */
export interface KeepRun {
  run: string;
  /** View; on TTT a PlaceTTT */
  view: string;
  /** of its owner, once they have one */
  secret?: string;
  /** the class folder it is saved into */
  folder?: string;
  /** what they call themselves there */
  student?: string;
}

/** An answer: it is kept. */
export interface KeptRun {
  id: string;
  secret: string;
  /** milliseconds since 1970 */
  until: number;
}

/** A stored run is to be shown. */
export interface OpenKept {
  id: string;
  /** of who asks, if they have one: it may be theirs */
  secret?: string;
}

/** An answer: a stored run, with the view under which it was saved. */
export interface OpenedRun {
  id: string;
  title: string;
  /** milliseconds since 1970; None: it stands in the gallery */
  until: number | null;
  /** whether the secret that came along is its owner's */
  mine: boolean;
  /** as OpenedLink */
  panels: string[] | null;
  group: string | null;
  focus: Focus;
  snapshot: ExploreSnapshot;
}

/** A stored run is to be deleted by its owner. */
export interface DeleteKept {
  id: string;
  secret: string;
}

/** A class folder is to be made. */
export interface NewFolder {
  name: string;
}

/** An answer: a class folder, and its teacher's secret. */
export interface MadeFolder {
  folder: string;
  secret: string;
  name: string;
}

/** What is a class folder called? With its teacher's secret: what lies in it? */
export interface AskFolder {
  folder: string;
  secret?: string;
}

/** A class folder is to be deleted by its teacher, with all that was saved and handed in there. */
export interface DeleteFolder {
  folder: string;
  secret: string;
}

/** An answer: it is deleted, and so many runs and answers with it. */
export interface DeletedFolder {
  runs: number;
  answers: number;
}

/** A run, or a pupil's answers to a lesson, are to be deleted from a class folder by its teacher. */
export interface DeleteFromFolder {
  folder: string;
  secret: string;
  /** of a KeptEntry or a HandedEntry */
  id: string;
}

/** A stored run in a list. */
export interface KeptEntry {
  id: string;
  title: string;
  model: string;
  /** of a TTT model: the TTT page shows it */
  of_ttt: boolean;
  tokens: number;
  student: string;
  /** milliseconds since 1970 */
  created: number;
}

/** A pupil's answers to a lesson, in a list. */
export interface HandedEntry {
  /** by which its teacher deletes them */
  id: string;
  student: string;
  /** of the lesson */
  title: string;
  right: number;
  answered: number;
  /** milliseconds since 1970 */
  at: number;
}

/** An answer: stored runs, of the gallery or a class folder, and what was handed in there; none for who is not its teacher. */
export interface KeptList {
  name: string;
  runs: KeptEntry[];
  answers: HandedEntry[];
}

/** A pupil's answers to a lesson are handed in to a class folder, in place of those handed in before. */
export interface HandIn {
  kind: "csv" | "json";
  student: string;
  lesson: string;
  version: number;
  title: string;
  made_with: Record<string, string>;
  answers: LessonAnswer[];
  folder: string;
  /** as of KeepRun */
  secret?: string;
}

/** An answer: they are kept. */
export interface HandedIn {
  secret: string;
  /** milliseconds since 1970 */
  at: number;
}

/** A pupil takes back what was handed in of a lesson. */
export interface Withdraw {
  folder: string;
  secret: string;
  lesson: string;
  /** the name it was handed in with */
  student: string;
}

/** All that a class handed in, as a file for its teacher. */
export interface AskHanded {
  folder: string;
  secret: string;
  kind: "csv" | "json";
}

/** A field of a form. */
export interface Control {
  name: string;
  kind: "whole" | "number" | "choice" | "flag" | "name" | "long";
  group: string;
  low: number;
  high: number;
  step: number;
  choices: string[];
  value: boolean | number | string;
}

/** What the script of a page beside Explore is told once, in both languages. */
export interface ScriptedConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
}

/** A column of a table. */
export interface Column {
  name: string;
  unit: string;
  /** the unit, in the page's language */
  called: string;
  head: string;
  says: string;
}

/** How a control stands: the line under it, whether it applies, whether it is refused. */
export interface Face {
  info: string;
  on: boolean;
  bad: boolean;
}

/** A line of text; what is shown stays. */
export interface MeasureStatus {
  kind: "status";
  text: string;
  bad: boolean;
  /** of what was asked for */
  ticket?: string;
  /** nothing more will come of it */
  over?: boolean;
  /** there was no place to wait in */
  full?: boolean;
  /** that it is about */
  field?: string;
  /** a way out: all that is set, in another precision */
  act?: Act;
  /** by place, why cards are refused */
  reasons?: Record<string, string>;
}

/** What to try with a model. */
export interface Offer {
  examples: string[];
  continuation: string;
}

/** Settings with a name. */
export interface Preset {
  name: string;
  values: Record<string, boolean | number | string>;
}

/** How many configurations there may be, and how long a name. */
export interface CardLimits {
  least: number;
  most: number;
  name: number;
  /** loops of a sweep as it is added */
  sweep: number;
  sweep_least: number;
  sweep_most: number;
}

/** A card of the recorded comparison; `origin`: the text that it is called by. */
export interface RecordedCard {
  origin: string;
  plain: boolean;
  values: Record<string, boolean | number | string>;
  sweep: number;
}

/** What the recorded comparison was made of. */
export interface RecordedCards {
  model: string;
  prompt: string;
  continuation: string;
  shared: Record<string, boolean | number | string>;
  cards: RecordedCard[];
  baseline: number;
}

/** What the script of the Compare page is told once. */
export interface CompareConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  /** by model; "": of any other */
  offers: Record<string, Offer>;
  presets: Preset[];
  /** the model without its loop */
  plain: Record<string, boolean | number | string>;
  /** of the controls that a card has of its own */
  groups: string[];
  limits: CardLimits;
  colours: string[];
  dashes: ("solid" | "dash" | "dot" | "dashdot" | "longdash" | "longdashdot")[];
  symbols: string[];
  /** the model that a card of another model begins with */
  other: string;
  /** what the comparison that comes along was made of */
  recorded: RecordedCards | null;
}

/** What is new of a configuration: its text from token `from` on. */
export interface CardNews {
  stage: "waiting" | "text" | "written" | "timing" | "greedy" | "scoring" | "sweep" | "done" | "stopped" | "refused";
  pieces: string[];
  from: number;
  done?: number;
  total?: number;
  /** why it is refused */
  reason?: string;
  row?: Record<string, any>;
  /** cells that are words */
  said?: Record<string, string>;
  /** a token each: from the baseline's text */
  differs?: boolean[] | null;
  /** tokens before the first that differs */
  same?: number | null;
  /** of a sweep, with the cells that are words in place */
  rows?: Record<string, any>[];
  /** the word that opens it in Explore */
  link?: string | null;
}

/** A column of a comparison's table. */
export interface CompareColumn {
  name: string;
  unit: string;
  /** the unit, in the page's language */
  called: string;
  head: string;
  says: string;
  better: "low" | "high" | null;
  group: string | null;
  /** shown until all are asked for */
  first: boolean;
  /** absolute, or as a share: what is no difference */
  noise: [number, number];
}

/** The words of the curves. */
export interface CurveWords {
  titles: Record<string, string>;
  questions: Record<string, string>;
  views: Record<string, string>;
  choices: Record<string, string>;
}

/** All there is of a comparison. Cards are named by their places. */
export interface CompareSnapshot {
  kind: "snapshot";
  run: string;
  ticket: string;
  seq: number;
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  model: string;
  prompt: string;
  names: Record<string, string>;
  baseline: number;
  refused: Record<string, string>;
  cards: Record<string, CardNews>;
  figures: Record<string, Figure>;
  pareto: Figure;
  columns: CompareColumn[];
  words: CurveWords;
  choose: string;
  view: string;
  axes: [string, string];
  /** what it comes to, so far */
  verdict: string;
  /** what the models were held in, in words; "": float32 */
  held: string;
}

/** What events `first` to `last - 1` brought. A page that has not `first` of them asks for a snapshot. */
export interface CompareNews {
  kind: "news";
  run: string;
  ticket: string;
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  first: number;
  last: number;
  cards: Record<string, CardNews>;
  ops: Record<string, any[][]>;
  pareto?: Figure;
  verdict?: string;
}

/** Where a comparison's model is, and what is to be known of it and of others that are compared. */
export interface CheckedModel {
  name: string;
  state: "waiting" | "importing" | "loading" | "ready" | "failed" | "ask";
  text: string;
  /** that it, and the others, are to be held in */
  precision: Face;
  /** of all models that are here */
  notes: Notes | null;
}

/** What a configuration comes to. */
export interface CheckedCard {
  about: string;
  refused: string | null;
  values: Record<string, boolean | number | string>;
  /** what was set and has given way to the model */
  gave: Record<string, any>;
  controls: Record<string, Face>;
  /** about how long it takes here */
  cost: string;
  /** it runs as its model comes: another one than the page's, or one without a loop to set */
  fixed: boolean;
  /** of its model */
  state: "waiting" | "importing" | "loading" | "ready" | "failed" | "ask";
}

/** An answer: what applies, and what would be refused. */
export interface Checked {
  kind: "checked";
  model: CheckedModel;
  /** what suits the model; None: it is not there yet */
  base: Record<string, boolean | number | string> | null;
  /** whether that is a loop of its own */
  looped: boolean;
  cards: CheckedCard[];
  shared: Record<string, Face>;
  /** about how long all of them take here */
  cost: string;
}

/** An answer: what a link brings to the page. */
export interface OpenedComparison {
  kind: "opening";
  values: Record<string, boolean | number | string>;
  prompt: string | null;
  /** a model that is shown beside the page's without its loop; None: its settings are shown */
  beside: string | null;
  said: string[];
}

/** What a link has set for a model. */
export interface LinkedValues {
  model: string;
  values: Record<string, any>;
}

/** A configuration as it is set up. */
export interface CardAsked {
  name: string;
  /** the model without its loop */
  plain: boolean;
  /** set here */
  values: Record<string, any>;
  base: LinkedValues | null;
  /** up to how many loops it is measured; 0: once, as it is */
  sweep: number;
  /** the model it is of, as that comes; "": the page's */
  model: string;
  /** whether a link named that model, and the visitor has not agreed to it yet */
  linked: boolean;
}

/** All that is set up: what applies, what would be refused? */
export interface Check {
  lang: "en" | "zh";
  model: string;
  /** what all models are to be held in */
  precision: string;
  linked: boolean;
  look: boolean;
  /** the model whose settings the cards hold */
  suits: string;
  shared: Record<string, any>;
  cards: CardAsked[];
  /** a place */
  baseline: number;
  /** characters of prompt and continuation */
  lengths: number[];
}

/** A comparison. */
export interface Compare {
  lang: "en" | "zh";
  model: string;
  /** what all models are to be held in */
  precision: string;
  linked: boolean;
  look: boolean;
  /** the model whose settings the cards hold */
  suits: string;
  shared: Record<string, any>;
  cards: CardAsked[];
  /** a place */
  baseline: number;
  /** characters of prompt and continuation */
  lengths: number[];
  prompt: string;
  continuation: string;
  ticket: string;
  n: number;
}

/** What does a link bring? */
export interface OpenLink {
  word: string;
  lang: "en" | "zh";
}

/** A comparison anew: in another language, by another quantity, with other axes. */
export interface LookCompared {
  run: string | null;
  lang: "en" | "zh";
  view?: string;
  axes?: string[];
}

/** End a comparison, or one configuration of it. */
export interface StopCompared {
  ticket: string | null;
  place: number | null;
}

/** Texts to measure on: which one suits a model ("": any other), and the texts. */
export interface Samples {
  of: Record<string, string>;
  texts: Record<string, string>;
}

/** What the script of the Lab page is told once. */
export interface LabConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  samples: Samples;
}

/** A parameter of a measurement; the ends of a number. */
export interface TaskField {
  name: string;
  kind: "long" | "file" | "choice" | "flag" | "whole" | "number" | "line";
  /** by language, as the next */
  titles: Record<string, string>;
  words: Record<string, string>;
  value: boolean | number | string | null;
  /** a line that holds loop settings */
  json: boolean;
  /** one loop's, which a model may bring */
  loop: boolean;
  choices: string[] | null;
  /** characters */
  limit: number;
  low?: number;
  high?: number;
}

/** How much of a measurement, at one press. */
export interface TaskSize {
  /** by language */
  words: Record<string, string>;
  values: Record<string, any>;
}

/** A measurement that there is. */
export interface LabTask {
  name: string;
  /** by language: title, question, how, cost, and those of its figure */
  words: Record<string, Record<string, string>>;
  fields: TaskField[];
  sizes: TaskSize[];
  /** fields that are in sight beside the text */
  asks: string[];
  /** whether there are any, to be explained */
  intervals: boolean;
  /** whether a recorded one comes along */
  kept: boolean;
  /** that it is offered under, apart from the others; "" for one of those */
  group: string;
}

/** How much a size is here: what it sets, and about how long it takes; "" where that is not known. */
export interface Sized {
  values: Record<string, any>;
  text: string;
}

/** An answer: the sizes of a task with this model on this server, and what is filled in as it stands. */
export interface LabSizes {
  kind: "sizes";
  task: string;
  sizes: Sized[];
  as_set: string;
}

/** About how long would the sizes of a task take? */
export interface AskSizes {
  lang: "en" | "zh";
  model: string;
  /** that it is held in */
  precision: string;
  task: string;
  values: Record<string, any>;
  /** whether a text among them is only the beginning of one */
  cut: boolean;
}

/** An answer: what can be measured. */
export interface LabTasks {
  kind: "tasks";
  tasks: LabTask[];
}

/** An answer: where the model is, its own loop, the tokens that it can read at once; what it is held in, and what is to be known of it. */
export interface LabModel {
  kind: "model";
  name: string;
  state: "waiting" | "importing" | "loading" | "ready" | "failed" | "ask";
  text: string;
  loop?: Record<string, any>;
  context?: number;
  precision?: Face;
  notes?: Notes;
}

/** A place of the slider under a figure: what it is called, where it is on the axis, what it comes to. */
export interface LabStop {
  at: string;
  x: number;
  said: string;
}

/** What the slider under a figure goes along, and the colour of what is selected. */
export interface LabWalk {
  along: string;
  colour: string;
  stops: LabStop[];
}

/** All there is of a measurement, but only the first rows of many. */
export interface LabSnapshot {
  run: string;
  ticket: string;
  done: number;
  total: number | null;
  seconds: number;
  /** of the work that is done */
  share: number;
  /** seconds */
  eta: number | null;
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  reason: string;
  kind: "snapshot";
  task: string;
  model: string;
  columns: Column[];
  rows: Record<string, any>[];
  /** its result in words, so far */
  headline: string;
  /** what the model was held in, in words; "": float32 */
  held: string;
  /** whether a row's model can be opened in Explore */
  opens: boolean;
  figure: Figure | null;
  walk: LabWalk | null;
}

/** Rows from number `first` on, and how far it is. */
export interface LabNews {
  run: string;
  ticket: string;
  done: number;
  total: number | null;
  seconds: number;
  /** of the work that is done */
  share: number;
  /** seconds */
  eta: number | null;
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  reason: string;
  kind: "news";
  first: number;
  rows: Record<string, any>[];
  headline?: string;
  figure?: Figure | null;
  walk?: LabWalk | null;
}

/** An answer: the word that opens a row's model in Explore, or why there is none. */
export interface RowLink {
  kind: "link";
  word: string | null;
  text: string;
}

/** What can be measured? */
export interface ListTasks {
}

/** Where is the model? As on Explore. */
export interface AskLabModel {
  model: string;
  lang: "en" | "zh";
  look: boolean;
  linked?: boolean;
  /** what it is to be held in */
  precision?: string;
}

/** A measurement anew, in another language. */
export interface LookMeasured {
  run: string | null;
  lang: "en" | "zh";
}

/** A link to a row's model. */
export interface LinkRow {
  run: string | null;
  row: number;
  lang: "en" | "zh";
}

/** End a measurement. */
export interface StopMeasured {
  ticket: string | null;
}

/** A measurement. */
export interface Measure {
  lang: "en" | "zh";
  ticket: string;
  n: number;
  model: string;
  /** what it is to be held in */
  precision: string;
  task: string;
  values: Record<string, any>;
}

/** A lesson of the list. */
export interface LessonEntry {
  id: string;
  title: Words;
  about: Words;
  minutes: number;
  steps: number;
  version: number;
}

/** What the script of the Learn page is told once. */
export interface LearnConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  lessons: LessonEntry[];
  /** by what is measured, how its numbers are written: loops, mean, share, bytes, table or plain */
  shown: Record<string, string>;
  /** of several curves */
  colours: string[];
  dashes: ("solid" | "dash" | "dot" | "dashdot" | "longdash" | "longdashdot")[];
}

/** Something that is wrong with a lesson file: where, and in words. */
export interface LessonFault {
  field: string;
  text: string;
}

/** An answer: a lesson, or all that is wrong with it. */
export interface OpenedLesson {
  kind: "lesson";
  lesson: Lesson | null;
  /** of one that is not ours: its JSON */
  source: string;
  /** under which a browser keeps the answers to it */
  key: string;
  /** that it needs */
  models: string[];
  faults: LessonFault[];
}

/** How far a step's runs are. */
export interface LessonProgress {
  run: string;
  ticket: string;
  step: string;
  what_if: boolean;
  /** by run, what it has written */
  texts: Record<string, string>;
  kind: "progress";
  /** the run that is made */
  making: string;
  /** tokens of all of them */
  done: number;
  /** at most */
  total: number;
}

/** Something measured. */
export interface MeasuredValue {
  kind: "text" | "number" | "flag" | "words" | "curve";
  value: any;
  said: Words;
}

/** The way of a run through a problem of arrows. */
export interface LessonWay {
  prompt: string;
  /** where its state stands after each loop */
  steps: ([string, number | null])[];
  /** what the model said */
  said: [string, number | null];
}

/** What a step's runs have come to. */
export interface LessonResult {
  run: string;
  ticket: string;
  step: string;
  what_if: boolean;
  /** by run, what it has written */
  texts: Record<string, string>;
  kind: "result";
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  measured: Record<string, MeasuredValue>;
  /** of a what-if: its sentence */
  says: Words;
  /** of the first run, where the step has that picture */
  way: LessonWay | null;
  /** versions, and where each model came from */
  made_with: Record<string, string>;
}

/** An answer: how a guess stands to what was measured. */
export interface Judged {
  kind: "judged";
  /** None: nothing that was offered is right */
  right: boolean | null;
  /** 0 to 1 */
  score: number;
  /** the verdict */
  said: Words;
  /** the place of the right choice */
  choice: number | null;
  why: Words;
  guess: Words;
  measured: Words;
}

/** An answer: the word of a link that holds a lesson, or why there is none. */
export interface PackedLesson {
  kind: "packed";
  word: string | null;
  text: string;
}

/** An answer: a QR code, as the path of its dark squares in a drawing of `size` by `size`; none of what is too long. */
export interface LinkCode {
  kind: "code";
  size: number;
  path: string;
  text: string;
}

/** A lesson: one of ours by its id, or a teacher's own, as the text of its file or the word of a link. */
export interface OpenLesson {
  lang: "en" | "zh";
  id?: string;
  source?: string;
  word?: string;
}

/** With what a page hands in answers; days that the server keeps what is saved, 0: nothing is. */
export interface LessonVisit {
  kind: "visit";
  ticket: string;
  keeps: number;
}

/** A step's runs. */
export interface TryLesson {
  lang: "en" | "zh";
  ticket: string;
  n: number;
  /** of one of ours; "": it is in `source` */
  id: string;
  source: string;
  step: string;
  what_if: boolean;
  /** nothing is begun: the page is there, and is to be told how answers are handed in (LessonVisit) */
  visit?: boolean;
}

/** What has a step come to? */
export interface LookTried {
  run: string | null;
}

/** How does a guess stand to what was measured? */
export interface JudgeGuess {
  run: string | null;
  /** a choice's place, a number, a number a loop, the name of a run */
  guess: any;
}

/** A link to a teacher's own lesson. */
export interface PackLesson {
  source: string;
  lang: "en" | "zh";
}

/** A link as a QR code. */
export interface DrawCode {
  url: string;
  lang: "en" | "zh";
}

/** What was answered to a step, in words. */
export interface LessonAnswer {
  step: string;
  question: string;
  guess: string;
  measured: string;
  right: boolean | null;
  score: number;
  when: string;
}

/** A file of answers. */
export interface AnswersAsked {
  kind: "csv" | "json";
  student: string;
  lesson: string;
  version: number;
  title: string;
  made_with: Record<string, string>;
  answers: LessonAnswer[];
}

/** A stage of the way through a decoder layer, or before the first (embedding) or after the last. */
export interface AnatomyStage {
  /** it alone; of one name there are several where models differ */
  key: string;
  /** its place in the drawing */
  name: string;
  /** its words: `anatomy.stage.<title>` */
  title: string;
  /** and what it does: `anatomy.about.<about>` */
  about: string;
  /** the first is the one to draw */
  tensors: string[];
  /** of that one, by letter */
  axes: string[];
  /** MathML */
  formula: string;
  /** stages */
  reads: string[];
  code: Place;
  /** tensors of its picture; none: it has one of its own */
  drawn: string[];
  /** a layer; else it is of the token */
  within: boolean;
  /** measurements of the Lab about it; their words: `anatomy.lab.<name>` */
  lab: string[];
}

/** What the script of the Anatomy page is told once. */
export interface AnatomyConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  /** of a plain Llama, in order */
  stages: AnatomyStage[];
  /** that other models have */
  others: AnatomyStage[];
  /** of swish, as it is drawn */
  betas: number[];
  /** of a number `below` and `above` 0 */
  colours: Record<string, string>;
  /** functions and classes of llama.py in their order; their words: `anatomy.article.<name>` */
  article: Place[];
}

/** A tensor: floats, little-endian, base64, each times `scale`; NaN is a number that is not finite. */
export interface PackedNumbers {
  shape: number[];
  /** the wider where it has numbers too small for the other */
  dtype: "float16" | "float32";
  scale: number;
  data: string;
}

/** An answer: a run, before any of it is read again. */
export interface AnatomyRun {
  kind: "run";
  run: string;
  /** by which name it is had */
  model: string;
  called: string;
  /** a file names the model, and the visitor is asked before it is loaded */
  linked: boolean;
  about: string;
  layers: number;
  /** first and last layer, most loop steps */
  blocks: [number, number, number][];
  /** text, loops, whether of the prompt */
  tokens: ([string, number, 0 | 1])[];
  next: string;
  palette: (string | null)[];
  /** the token to open on */
  telling: number;
}

/** How what was read again stands to what the run recorded: :class:`loopviz.anatomy.reread.Agreement`. */
export interface Agreement {
  steps: boolean;
  /** in units of float16's rounding */
  states: number | null;
  norm: number | null;
  logprob: number | null;
  /** whether any number was recorded to compare with */
  compared: boolean;
  is_the_runs: boolean;
}

/** A token that was read again. */
export interface AnatomyToken {
  kind: "token";
  look: string;
  run: string;
  ticket: string;
  token: number;
  /** layer, block or -1, loop step: in their order */
  runs: [number, number, number][];
  reasons: string[];
  steps: (Record<string, number | null>)[];
  agreement: Agreement;
  tensors: Record<string, PackedNumbers>;
  /** of how many neighbours a number is the largest */
  each: Record<string, number>;
  facts: Record<string, Record<string, number | null>>;
}

/** Which columns attention could read, and which of them are shown. */
export interface ShownColumns {
  total: number;
  seen: number;
  /** among all */
  places: number[];
  positions: number[];
  slots: number[];
  visible: boolean[];
  /** places among those shown */
  keys: number[];
  /** by query head, of its weights what is shown */
  share: number[];
}

/** An answer: a layer in a loop step. */
export interface AnatomyLayer {
  kind: "layer";
  layer: number;
  block: number;
  step: number;
  /** keys of what was computed of the token, this layer in the middle, in order */
  stages: string[];
  tensors: Record<string, PackedNumbers>;
  each: Record<string, number>;
  columns: ShownColumns;
  facts: Record<string, Record<string, number | null>>;
  /** radians by which each pair of a head turns at every position */
  frequencies: number[];
  position: number;
  shapes: Record<string, Record<string, number>>;
}

/** An answer: two loop steps of a layer, by stage the cosine of their tensors and the relative change. */
export interface AnatomyBeside {
  kind: "beside";
  stages: Record<string, (number | null)[] | null>;
}

/** An answer: a score at each distance from one on, the run's own among them. */
export interface AnatomyDistance {
  from: number;
  kind: "distance";
  scores: PackedNumbers;
}

/** An answer: what the next token would be drawn from. */
export interface AnatomyDraw {
  kind: "draw";
  /** text, logit, its share, its chance of being drawn */
  rows: ([string, number | null, number | null, number | null])[];
  kept: number;
  vocabulary: number;
}

/** `llama.py` against transformers in one dtype and one way of attention: :class:`loopviz.engine.engine.ParityRow`. */
export interface ParityRow {
  subject: string;
  dtype: string;
  attention: string;
  logits: number;
  equal: boolean;
  agrees: boolean;
  max_delta_logit: number | null;
  largest_logit: number | null;
  delta_loss: number | null;
  loss: number | null;
  /** its words: `anatomy.cause.<cause>` */
  cause: string;
  bound: number | null;
  own: number | null;
}

/** The rows of a check so far. */
export interface AnatomyParity {
  kind: "parity";
  ticket: string;
  article: boolean;
  rows: ParityRow[];
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
}

/** An answer: what a check takes, in words; or why it is refused. */
export interface ParityNeeded {
  kind: "need";
  refused: boolean;
  text: string;
}

/** What does a check take? */
export interface AskNeed {
  article: boolean;
  model: string;
  lang: "en" | "zh";
}

/** An answer: there is no such layer or loop step, and what there is. */
export interface NotThere {
  kind: "no";
  field: string;
  text: string;
}

/** Which run is this? None: the recorded one. */
export interface ShowRun {
  run: string | null;
  lang: "en" | "zh";
}

/** A token of a run, to be read again, by another model than it says where one is named; or a check against transformers. */
export interface Dissect {
  lang: "en" | "zh";
  ticket: string;
  n: number;
  run: string | null;
  token: number;
  model?: string;
  /** to a model that a file names */
  agreed?: boolean;
  check?: "model" | "article";
}

/** What did a layer compute in a loop step? */
export interface AskLayer {
  look: string | null;
  layer: number;
  step: number;
  lang: "en" | "zh";
}

/** What have two loop steps in common? */
export interface AskBeside {
  look: string | null;
  layer: number;
  step: number;
  lang: "en" | "zh";
  other: number;
}

/** What would a query head score with a column's key at other distances, up to the most? */
export interface AskDistance {
  look: string | null;
  layer: number;
  step: number;
  lang: "en" | "zh";
  head: number;
  column: number;
  most: number;
}

/** What would the next token be drawn from? */
export interface AskDraw {
  look: string | null;
  temperature: number;
  top_k: number;
  top_p: number;
  lang: "en" | "zh";
}

/** A picture, and what is said of it. */
export interface TTTPanel {
  name: string;
  /** by language: title, question, how, source */
  words: Record<string, Record<string, string>>;
  /** by language, MathML */
  formulas: Record<string, string>;
  code: Place[];
}

/** What the script of the TTT page is told once. */
export interface TTTConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  /** attention and forgetting are drawn when they are asked for */
  panels: TTTPanel[];
  prompts: string[];
  /** the TTT model that the page opens with */
  called: string;
  /** that the inner rules are given at most */
  rule_words: number;
  /** the model of equal size with attention */
  control: string;
  /** tokens that a run may choose */
  most_new: number;
  /** the largest factor on the inner learning rate */
  most_scale: number;
  /** words a second that may be chosen; 0: as fast as it goes */
  paces: number[];
}

/** What was changed of a run, from the word at `index` on. */
export interface TTTChanged {
  index: number;
  forget: boolean;
  scale: number;
}

/** A run as it is shown now. */
export interface TTTSnapshot {
  run: string;
  /** of the figures: it goes up whenever the visitor looks elsewhere */
  epoch: number;
  words: ([string, 0 | 1, number | null])[];
  /** the word that was chosen last, and has not been read */
  next: string;
  changes: TTTChanged[];
  /** by panel */
  summaries: Record<string, string>;
  end: "eos" | "length" | "context" | "stopped" | "time" | "memory" | "error" | null;
  /** why it ended, where that is bad news */
  reason: string;
  kind: "snapshot";
  ticket: string;
  model: string;
  layers: number;
  heads: number;
  mini_batch: number;
  /** the factor that it began with */
  scale: number;
  figures: Record<string, Figure>;
}

/** What has come since the page had `first` words. */
export interface TTTNews {
  run: string;
  /** of the figures: it goes up whenever the visitor looks elsewhere */
  epoch: number;
  words: ([string, 0 | 1, number | null])[];
  /** the word that was chosen last, and has not been read */
  next: string;
  changes: TTTChanged[];
  /** by panel */
  summaries: Record<string, string>;
  end: "eos" | "length" | "context" | "stopped" | "time" | "memory" | "error" | null;
  /** why it ended, where that is bad news */
  reason: string;
  kind: "news";
  ticket: string;
  first: number;
  ops: Record<string, any[][]>;
}

/** With what a page opens files, and how large they may be, in bytes; days that a run is kept by the server, 0: none is. */
export interface TTTVisit {
  kind: "visit";
  ticket: string;
  largest: number;
  keeps: number;
}

/** A run of a TTT model, looked at here. */
export interface BeginTTT {
  lang: "en" | "zh";
  ticket: string;
  n: number;
  model: string;
  prompt: string;
  max_new_tokens: number;
  scale: number;
  layer?: number;
  head?: number | null;
  /** nothing is begun: the page is there, and is to be told how it opens files (TTTVisit) */
  visit?: boolean;
  /** words a second, so that one can watch and steer; 0: as fast as it goes */
  pace?: number;
}

/** The run as it looks from elsewhere. `head` None: the mean of all; `token` None: the newest. */
export interface LookTTT {
  run: string | null;
  layer: number;
  head: number | null;
  token: number | null;
  lang: "en" | "zh";
}

/** Where one looks in a run, as it is kept with it (LookTTT). */
export interface PlaceTTT {
  layer: number;
  head: number | null;
  token: number | null;
}

/** An answer: a run that the server keeps, looked at as it was when it was saved. */
export interface OpenedTTT {
  id: string;
  title: string;
  /** as of OpenedRun */
  until: number | null;
  mine: boolean;
  place: PlaceTTT;
  snapshot: TTTSnapshot;
}

/** Change a run from the next word on. */
export interface SteerTTT {
  run: string | null;
  forget: boolean;
  scale: number;
  lang: "en" | "zh";
}

/** What does the control look at, in the mini-batch of this word (None: of the newest)? Or: what do the inner rules hold? */
export interface AskAttention {
  run: string | null;
  layer: number;
  head: number | null;
  token: number | null;
  lang: "en" | "zh";
  visitor?: string;
}

/** An answer: the control's attention. */
export interface ControlAttention {
  kind: "attention";
  figure: Figure;
  summary: string;
}

/** An inner rule: what it does, and what it holds. */
export interface InnerRule {
  name: string;
  called: string;
  what: string;
  figure: Figure;
  summary: string;
}

/** An answer: the run's keys and values, written by four rules. */
export interface InnerRules {
  kind: "rules";
  rules: InnerRule[];
}

/** What would the words after this one have cost, if the memory had been set back after it? */
export interface AskForgetting {
  run: string | null;
  token: number;
  lang: "en" | "zh";
  /** as of AskAttention */
  visitor?: string;
}

/** An answer: the losses of the words that follow, with what was read before and without. */
export interface Forgetting {
  kind: "forgetting";
  token: number;
  figure: Figure;
  summary: string;
}

/** A number of the form, with its ends and what it opens with. */
export interface TeachField {
  name: string;
  kind: "whole" | "number";
  low: number;
  high: number;
  value: number;
}

/** What the script of the Teach page is told once. */
export interface TeachConfig {
  kind: "config";
  page: "learn" | "explore" | "anatomy" | "ttt" | "compare" | "lab" | "teach";
  pages: Record<string, string>;
  languages: Record<string, string>;
  texts: Record<string, Record<string, string>>;
  toolbar: Record<string, Record<string, string>>;
  templates: Templates;
  controls: Control[];
  models: string[];
  /** whether this server teaches anything */
  teaches: boolean;
  /** whether peft is here */
  able: boolean;
  /** the command that brings it */
  install: string;
  fields: TeachField[];
  /** of data */
  kinds: string[];
  /** of prompts and responses, as the form has them */
  prompt_templates: string[];
  /** texts to begin with */
  samples: Samples;
  /** the fixed one to begin with, by model; "": of any other */
  prompts: Record<string, string>;
  /** characters of a text */
  limit: number;
  /** where what is kept is fetched from; {run} stands in it */
  file: string;
}

/** An answer: where the model is, and what of the form it decides. */
export interface TeachModel {
  kind: "model";
  name: string;
  state: "waiting" | "importing" | "loading" | "ready" | "failed" | "ask";
  text: string;
  usual?: Record<string, number>;
  layers?: number;
  context?: number;
}

/** What was kept: a folder as peft writes it, packed. */
export interface TeachKept {
  name: string;
  bytes: number;
  /** its default */
  loops: number;
  /** what it is worth */
  said: string;
  /** that opens it */
  command: string;
  /** the word that opens it on Compare, beside the model without it; None where no folder may be named */
  link: string | null;
}

/** All there is of a teaching. */
export interface TeachSnapshot {
  kind: "snapshot";
  run: string;
  ticket: string;
  model: string;
  phase: "loading" | "training" | "paused" | "line" | "over" | "keeping";
  step: number;
  steps: number;
  tokens: number;
  seconds: number;
  /** seconds */
  eta: number | null;
  /** parameters */
  trained: number;
  seed: number;
  /** that teaches the same */
  command: string;
  end: "done" | "stopped" | "time" | "memory" | "error" | null;
  reason: string;
  figures: Record<string, Figure>;
  /** by figure */
  summaries: Record<string, string>;
  kept: TeachKept | null;
}

/** A teaching; or, of one that there is, that it be kept. */
export interface BeginTeach {
  lang: "en" | "zh";
  ticket: string;
  n: number;
  model?: string;
  prompt?: string;
  text?: string;
  values?: Record<string, any>;
  /** the run */
  keep?: string | null;
}

/** A teaching anew, in another language. */
export interface LookTaught {
  run: string | null;
  lang: "en" | "zh";
}

/** Rest after the step at hand, or go on. */
export interface PauseTeaching {
  run: string | null;
  on: boolean;
}

export type LearnMessage = LearnConfig | MeasureStatus | LessonProgress | LessonResult | LessonVisit;

export type LearnQuestions = {
  lesson: { asked: OpenLesson; answer: OpenedLesson | Failed };
  model: { asked: AskLabModel; answer: LabModel | Failed };
  look: { asked: LookTried; answer: LessonResult | Gone | Failed };
  judge: { asked: JudgeGuess; answer: Judged | Gone | Failed };
  stop: { asked: StopMeasured; answer: Done | Failed };
  pack: { asked: PackLesson; answer: PackedLesson | Failed };
  code: { asked: DrawCode; answer: LinkCode | Failed };
  answers: { asked: AnswersAsked; answer: KeptFile | Failed };
};

export interface LearnEvents {
  begin: TryLesson;
}

export type ExploreMessage = ExploreConfig | ExploreStatus | ExploreSnapshot | Frames | LinkMade | Brought | Revisit;

export type ExploreQuestions = {
  resync: { asked: Resync; answer: ExploreSnapshot | Current | Gone | Failed };
  focus: { asked: Look; answer: ExploreSnapshot | Gone | Failed };
  advance: { asked: Advance; answer: Steps | ExploreSnapshot | Gone | Failed };
  explain: { asked: Explain; answer: Told | Gone | Failed };
  text_until: { asked: TextUntil; answer: Prompt | Gone | Failed };
  guesses: { asked: AskGuesses; answer: Guesses | Gone | Failed };
  carry: { asked: Carry; answer: Done | Gone | Failed };
  model_status: { asked: AskModel; answer: ModelStatus | Failed };
};

export interface ExploreEvents {
  loaded: void;
  start: Start;
  halt: Halt;
  again: Retype;
  adopt: Adopt;
  dial: void;
  retype: Retype;
  link: MakeLink;
  visit: void;
  keep: void;
  restore: void;
}

export type AnatomyMessage = AnatomyConfig | MeasureStatus | AnatomyToken | AnatomyParity;

export type AnatomyQuestions = {
  show: { asked: ShowRun; answer: AnatomyRun | Gone | Failed };
  model: { asked: AskLabModel; answer: LabModel | Failed };
  layer: { asked: AskLayer; answer: AnatomyLayer | NotThere | Gone | Failed };
  beside: { asked: AskBeside; answer: AnatomyBeside | NotThere | Gone | Failed };
  distance: { asked: AskDistance; answer: AnatomyDistance | NotThere | Gone | Failed };
  need: { asked: AskNeed; answer: ParityNeeded | Failed };
  draw: { asked: AskDraw; answer: AnatomyDraw | NotThere | Gone | Failed };
  stop: { asked: StopMeasured; answer: Done | Failed };
};

export interface AnatomyEvents {
  begin: Dissect;
}

export type TttMessage = TTTConfig | MeasureStatus | TTTSnapshot | TTTNews | TTTVisit;

export type TttQuestions = {
  model: { asked: AskLabModel; answer: LabModel | Failed };
  look: { asked: LookTTT; answer: TTTSnapshot | Gone | Failed };
  steer: { asked: SteerTTT; answer: Done | NotThere | Gone | Failed };
  attention: { asked: AskAttention; answer: ControlAttention | NotThere | Gone | Failed };
  rules: { asked: AskAttention; answer: InnerRules | NotThere | Gone | Failed };
  forgetting: { asked: AskForgetting; answer: Forgetting | NotThere | Gone | Failed };
  stop: { asked: StopMeasured; answer: Done | Failed };
};

export interface TttEvents {
  begin: BeginTTT;
}

export type CompareMessage = CompareConfig | MeasureStatus | CompareSnapshot | CompareNews;

export type CompareQuestions = {
  check: { asked: Check; answer: Checked | Failed };
  look: { asked: LookCompared; answer: CompareSnapshot | Gone | Failed };
  stop: { asked: StopCompared; answer: Done | Failed };
  download: { asked: Download; answer: KeptFile | Gone | Failed };
  opening: { asked: OpenLink; answer: OpenedComparison | Failed };
};

export interface CompareEvents {
  begin: Compare;
}

export type LabMessage = LabConfig | MeasureStatus | LabSnapshot | LabNews;

export type LabQuestions = {
  tasks: { asked: ListTasks; answer: LabTasks | Failed };
  model: { asked: AskLabModel; answer: LabModel | Failed };
  sizes: { asked: AskSizes; answer: LabSizes | Failed };
  look: { asked: LookMeasured; answer: LabSnapshot | Gone | Failed };
  link: { asked: LinkRow; answer: RowLink | Gone | Failed };
  stop: { asked: StopMeasured; answer: Done | Failed };
  download: { asked: Download; answer: KeptFile | Gone | Failed };
};

export interface LabEvents {
  begin: Measure;
}

export type TeachMessage = TeachConfig | MeasureStatus | TeachSnapshot;

export type TeachQuestions = {
  model: { asked: AskLabModel; answer: TeachModel | Failed };
  look: { asked: LookTaught; answer: TeachSnapshot | Gone | Failed };
  pause: { asked: PauseTeaching; answer: Done | Gone | Failed };
  stop: { asked: StopMeasured; answer: Done | Failed };
};

export interface TeachEvents {
  begin: BeginTeach;
}
