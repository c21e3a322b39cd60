// Everything that is seen is in the URL's fragment, so that it can be sent to somebody, reloaded and gone
// back from.

import type { DiffMode } from '../flamegraph/diff';
import type { Direction } from '../flamegraph/view';

export const VIEWS = ['graph', 'table', 'sandwich'] as const;
export const PAGES = ['profiles', 'requests'] as const;
export type PageName = (typeof PAGES)[number];
export type ViewName = (typeof VIEWS)[number];
export type TableOrder = 'self' | 'total' | 'name';

export interface UrlState {
  readonly page: PageName;
  /** Of what: empty for the whole host, and for whatever type the server shows first. */
  readonly service: string;
  readonly type: string;
  readonly pid: string;
  readonly thread: string;
  readonly container: string;
  readonly trace_id: string;
  readonly span_id: string;
  /** The range of the time line; see `time.ts`. */
  readonly from: string;
  readonly to: string;
  /** The part of it that is brushed; empty for all. */
  readonly brush: string;
  /** Whether a range that ends now moves along. */
  readonly live: 'on' | 'off';
  /** Whether something is compared with a baseline. */
  readonly compare: 'on' | 'off';
  /** Service of the baseline, `*` for the whole host; empty for the same. */
  readonly baseService: string;
  /** Brushed part of the baseline's time line. */
  readonly baseBrush: string;
  /** A columnar graph of this server that is no selection, such as that of a span; and its baseline. */
  readonly source: string;
  readonly base: string;
  readonly mode: DiffMode;
  readonly view: ViewName;
  readonly direction: Direction;
  /** Paths of nodes, see `nodepath.ts`. */
  readonly zoom: string;
  readonly selected: string;
  readonly search: string;
  /** Key of the function in the sandwich and in the table, see `functions.ts`. */
  readonly function: string;
  readonly order: TableOrder;
  /** What narrows the requests; as the API takes it. */
  readonly route: string;
  readonly method: string;
  readonly status: string;
  readonly error: '' | 'true' | 'false';
  readonly min: string;
  readonly max: string;
  /** The marked part of the requests, see `requests/scatter.ts`; and how they are listed. */
  readonly marked: string;
  readonly list: 'slowest' | 'newest';
  /** The slowest requests of the route against typical ones. */
  readonly contrast: '' | 'on';
  /** The trace that is open, and the span in it. */
  readonly trace: string;
  readonly span: string;
  /** Whether the requests that ran the selected frame are listed. */
  readonly ran: '' | 'on';
}

export const DEFAULT_STATE: UrlState = {
  page: 'profiles',
  service: '',
  type: '',
  pid: '',
  thread: '',
  container: '',
  trace_id: '',
  span_id: '',
  from: '-15m',
  to: '',
  brush: '',
  live: 'on',
  compare: 'off',
  baseService: '',
  baseBrush: '',
  source: '',
  base: '',
  mode: 'share',
  view: 'graph',
  direction: 'icicle',
  zoom: '',
  selected: '',
  search: '',
  function: '',
  order: 'self',
  route: '',
  method: '',
  status: '',
  error: '',
  min: '',
  max: '',
  marked: '',
  list: 'slowest',
  contrast: '',
  trace: '',
  span: '',
  ran: '',
};

const CHOICES: { readonly [Key in keyof UrlState]?: readonly UrlState[Key][] } = {
  live: ['on', 'off'],
  compare: ['on', 'off'],
  mode: ['share', 'absolute'],
  view: VIEWS,
  direction: ['icicle', 'flame'],
  order: ['self', 'total', 'name'],
  page: PAGES,
  error: ['', 'true', 'false'],
  list: ['slowest', 'newest'],
  contrast: ['', 'on'],
  ran: ['', 'on'],
};

const KEYS = Object.keys(DEFAULT_STATE) as (keyof UrlState)[];

/** What is missing or makes no sense is as in {@link DEFAULT_STATE}. */
export function parseState(fragment: string): UrlState {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''));
  const state: Record<string, string> = { ...DEFAULT_STATE };
  for (const key of KEYS) {
    const text = fields.get(key);
    if (text === null) continue;
    const choices: readonly string[] | undefined = CHOICES[key];
    if (choices === undefined || choices.includes(text)) state[key] = text;
  }
  return state as unknown as UrlState;
}

/** The fragment of a state, with `#`; only what differs from {@link DEFAULT_STATE} is in it. */
export function formatState(state: UrlState): string {
  const fields = new URLSearchParams();
  for (const key of KEYS) {
    if (state[key] !== DEFAULT_STATE[key]) fields.set(key, state[key]);
  }
  const text = fields.toString();
  return text === '' ? '#' : `#${text}`;
}
