// What was answered to a lesson, and the file of it.

import { ANSWER_FILES } from "../core/contract.js";
import { el, press, renewing } from "../core/dom.js";
import { save } from "../core/page_head.js";

/** @typedef {import("./main.js").Page} Page */
/** @typedef {import("./kept_answers.js").Answer} Answer */

/** What came of an answer, for styles and for the eye; where no choice is what was measured, none could be right. @param {Answer | undefined} answer */
export function judgement(answer) {
  if (!answer) return { how: "", sign: "" };
  return answer.right === null ? { how: "none", sign: "–" } : answer.right ? { how: "right", sign: "✓" } : { how: "wrong", sign: "✗" };
}

export class ScoreCard {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h3", "lv-step-question");
    this.title.tabIndex = -1;
    this.said = el("p", "lv-score");
    this.rows = el("tbody");
    this.heads = el("tr");
    const table = el("table", "", el("thead", "", this.heads), this.rows);
    this.download = el("b");
    this.files = ANSWER_FILES.map((kind) => Object.assign(press("lv-quiet", () => this.keep(kind)), { value: kind }));
    this.again = press("lv-quiet", () => page.restart());
    this.another = press("lv-go", () => page.another());
    const files = el("div", "lv-files", this.download, ...this.files);
    this.give = press("lv-go", () => this.handIn());
    this.given = el("span", "lv-status");
    this.saidIn = ""; // the language of what it says
    this.given.setAttribute("role", "status");
    this.backs = el("span", "lv-files"); // a button a name, for two may share a computer
    this.renew = renewing();
    this.class = el("div", "lv-files", this.give, this.backs, this.given);
    this.node = el("article", "lv-step lv-score-card", this.title, this.said, el("div", "lv-table", table), this.class, files, el("div", "lv-step-ways", this.again, this.another));
    this.label();
  }

  label() {
    const { page } = this;
    const { steps } = page.lesson;
    const { answers } = page.record;
    const right = steps.filter((step) => answers[step.id]?.right).length;
    this.title.textContent = page.text("lesson.score");
    const none = steps.filter((step) => answers[step.id]?.right === null).length; // to which nothing could be right
    this.said.textContent = page.text("lesson.score.said", { right, n: steps.length - none });
    this.heads.replaceChildren(...["question", "guess", "measured", "verdict"].map((key) => el("th", "", page.text(`lesson.score.${key}`))));
    this.rows.replaceChildren(...steps.map((step) => this.row(step)));
    this.download.textContent = page.text("lesson.download");
    for (const button of this.files) button.textContent = page.text(`lesson.download.${button.value}`);
    this.again.textContent = page.text("lesson.again");
    this.class.hidden = !page.handing.name;
    if (this.saidIn !== page.frame.lang) this.given.textContent = "";
    this.give.textContent = page.text("live.stored.hand_in", { name: page.handing.name });
    this.give.disabled = !Object.keys(answers).length;
    this.labelBacks();
    const next = page.nextEntry();
    this.another.hidden = !next;
    this.another.textContent = next ? page.text("lesson.another", { title: next.title[page.frame.lang] }) : "";
  }

  /** @param {import("../core/contract.js").LessonStep} step */
  row(step) {
    const { page } = this;
    const answer = page.record.answers[step.id];
    const question = el("th", "", step.question[page.frame.lang]);
    if (!answer) return el("tr", "", question, Object.assign(el("td", "", page.text("lesson.score.open")), { colSpan: 3 }));
    const near = answer.right || !answer.score ? "" : ` ${page.text("lesson.score.near", { percent: Math.round(100 * answer.score) })}`;
    const { how, sign } = judgement(answer);
    const mark = el("td", "", `${sign}${near}`);
    mark.dataset.judged = how;
    const { lang } = page.frame;
    // of a line its two ends: all of it is in the file
    const brief = (/** @type {string} */ said) => (step.predict.kind === "line" ? said.replace(/^([^,]*),.*, ([^,]*)$/, "$1 → $2") : said);
    return el("tr", "", question, el("td", "", brief(answer.guess[lang])), el("td", "", brief(answer.measured[lang])), mark);
  }

  /**
   * What was answered, as the server takes it.
   * @param {typeof ANSWER_FILES[number]} kind of the file that may be made of it
   */
  answers(kind) {
    const { page } = this;
    const { lesson, record } = page;
    const { lang } = page.frame;
    const answers = lesson.steps.flatMap((step) => {
      const answer = record.answers[step.id];
      if (!answer) return [];
      const { right, score, when } = answer;
      const said = { question: step.question[lang], guess: answer.guess[lang], measured: answer.measured[lang] };
      return [{ step: step.id, ...said, right, score, when }];
    });
    const title = lesson.title[lang];
    return { kind, student: page.student.value, lesson: lesson.id, version: lesson.version, title, made_with: record.made_with ?? {}, answers };
  }

  /** To the class folder this tab is in. */
  async handIn() {
    const { page, give } = this;
    give.disabled = true;
    const came = await page.handing.send(this.answers(ANSWER_FILES[0]));
    give.disabled = false;
    this.tell(came);
  }

  /** @param {{ said: string, bad: boolean }} came of handing in, or of taking back */
  tell({ said, bad }) {
    const { page, given } = this;
    given.textContent = said;
    this.saidIn = page.frame.lang;
    given.classList.toggle("lv-bad", bad);
    this.labelBacks();
  }

  /** Buttons that take back what was handed in. */
  labelBacks() {
    const { page, backs, give } = this;
    const { id } = page.lesson;
    const names = page.handing.handedAs(id);
    this.renew("backs", [page.frame.lang, id, names], () => {
      const buttons = names.map((student) => {
        const back = press("lv-quiet", async () => {
          back.disabled = true;
          this.tell(await page.handing.takeBack(id, student));
          back.disabled = false;
          if (!back.isConnected) give.focus({ preventScroll: true });
        });
        back.textContent = page.text(student ? "live.stored.withdraw.of" : "live.stored.withdraw", { name: student });
        return back;
      });
      backs.replaceChildren(...buttons);
    });
  }

  /** @param {typeof ANSWER_FILES[number]} kind */
  async keep(kind) {
    const { page } = this;
    const file = await page.frame.ask("answers", this.answers(kind));
    if (file?.kind === "file") save(file);
    else page.say(page.text("lesson.gone"), true);
  }
}
