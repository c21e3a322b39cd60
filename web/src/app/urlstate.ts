// Everything that is seen is in the URL's fragment, so that it can be sent to somebody, reloaded and gone
// back from.

import type { DiffMode } from '../flamegraph/diff';
import type { Direction } from '../flamegraph/view';

export const VIEWS = ['graph', 'table', 'sandwich'] as const;
export type ViewName = (typeof VIEWS)[number];
export type TableOrder = 'self' | 'total' | 'name';

export interface UrlState {
  /** Where the graph comes from; of this server. */
  readonly source: string;
  /** What it is compared with; empty for nothing. */
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
}

export const DEFAULT_SOURCE = 'api/v1/profiles/flamegraph?format=columnar';

export const DEFAULT_STATE: UrlState = {
  source: DEFAULT_SOURCE,
  base: '',
  mode: 'share',
  view: 'graph',
  direction: 'icicle',
  zoom: '',
  selected: '',
  search: '',
  function: '',
  order: 'self',
};

const MODES: readonly DiffMode[] = ['share', 'absolute'];
const DIRECTIONS: readonly Direction[] = ['icicle', 'flame'];
const ORDERS: readonly TableOrder[] = ['self', 'total', 'name'];

/** What is missing or makes no sense is as in {@link DEFAULT_STATE}. */
export function parseState(fragment: string): UrlState {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''));
  const text = (key: keyof UrlState): string => fields.get(key) ?? DEFAULT_STATE[key];
  const oneOf = <Choice extends string>(key: keyof UrlState, choices: readonly Choice[], usual: Choice): Choice =>
    choices.find((choice) => choice === fields.get(key)) ?? usual;
  return {
    source: text('source') || DEFAULT_SOURCE,
    base: text('base'),
    mode: oneOf('mode', MODES, DEFAULT_STATE.mode),
    view: oneOf('view', VIEWS, DEFAULT_STATE.view),
    direction: oneOf('direction', DIRECTIONS, DEFAULT_STATE.direction),
    zoom: text('zoom'),
    selected: text('selected'),
    search: text('search'),
    function: text('function'),
    order: oneOf('order', ORDERS, DEFAULT_STATE.order),
  };
}

/** The fragment of a state, with `#`; only what differs from {@link DEFAULT_STATE} is in it. */
export function formatState(state: UrlState): string {
  const fields = new URLSearchParams();
  for (const key of Object.keys(DEFAULT_STATE) as (keyof UrlState)[]) {
    if (state[key] !== DEFAULT_STATE[key]) fields.set(key, state[key]);
  }
  const text = fields.toString();
  return text === '' ? '#' : `#${text}`;
}
