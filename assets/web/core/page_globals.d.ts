// What scripts share through the window, and what others bring: Plotly, Gradio's component. For `tsc` and editors alone.

import type { ExploreEvents, Opening } from "./contract.js";

/** Of Plotly what is used here. */
export interface Plotly {
  react(node: HTMLElement, data: object[], layout: object, config: object): Promise<unknown>;
  purge(node: HTMLElement): void;
  toImage(node: HTMLElement, options: object): Promise<string>;
  downloadImage(node: HTMLElement, options: object): Promise<unknown>;
  Icons: Record<string, object>;
}

/** An element in which Plotly has drawn. */
export interface Drawn extends HTMLElement {
  on?(name: "plotly_click", act: (event: { points: Point[] }) => void): void;
  removeAllListeners?(name: string): void;
  /** What Plotly made of the layout; `_size` is the room around the axes, in pixels, as it came out. */
  _fullLayout?: { _size: Sides };
}

/** Pixels at the four sides of a plot. */
export interface Sides {
  l: number;
  r: number;
  t: number;
  b: number;
}

/** A point of a plot that was clicked; more of it is named by its figure. */
export interface Point {
  curveNumber?: number;
  [name: string]: any;
}

/** The component in which Gradio shows us: its value carries messages. */
export interface Props {
  value: unknown;
}

/** Whether the server can be reached; `changed`: one of another version can. */
export type Reach = "here" | "away" | "changed";

/** What may be asked of the server, by name. */
export type Functions = Record<string, (question: string) => Promise<string>>;

/** What the element of a page beside Explore gets from Gradio. */
export interface Parts<Begin> {
  root: HTMLElement;
  server: Functions;
  props: Props;
  watch(name: "value", act: () => void): void;
  begin(asked: Begin): void;
}

/** Gradio's events on Explore. */
export type Tell = { [E in keyof ExploreEvents]: ExploreEvents[E] extends void ? () => void : (asked: ExploreEvents[E]) => void };

declare global {
  const Plotly: Plotly;

  interface Window {
    Plotly?: Plotly;
    /** ours, the one that pages begin with; Gradio brings another */
    loopvizPlotly?: Promise<Plotly>;
    /** ours, all of it */
    loopvizWholePlotly?: Promise<Plotly> | null;
    /** what Explore opens with, asked for in the document's head */
    loopvizOpening?: Promise<Opening | null>;
    /** addresses that the script needs */
    loopvizPlaces?: Record<string, string>;
    /** Gradio may build its part now */
    loopvizLater?: () => void;
    /** what is known of the form of settings: Gradio's events call it */
    loopvizForm?: object;
    /** whether the server can be reached, and who is told when that changes (core/gradio_connection.js) */
    loopvizReach?: { readonly state: Reach; follow(follower: (state: Reach) => void): void };
    /** functions that Gradio would make from text */
    loopvizWritten?: (written: [string, unknown][], loads: [string, (...args: any[]) => unknown][]) => void;
    /** a text that is missing is an error; for tests */
    loopvizStrict?: boolean;
    /** of a report */
    report?: object;
  }

  interface HTMLElement {
    /** of the root of a page: what tests and Gradio's events reach */
    page?: object;
  }
}
