// From what is chosen on the page to what the API is asked for.

import type { UrlState } from './urlstate';
import { followsNow, parseBrush, rangeOf, relativeMs } from './time';

/** `after` is what is looked at; `before` the baseline that it is compared with. */
export type Side = 'before' | 'after';

/** What narrows a selection besides the service, in the order in which it is shown. */
export const FILTERS = ['pid', 'thread', 'container', 'trace_id', 'span_id'] as const;
export type Filter = (typeof FILTERS)[number];

export function serviceOf(state: UrlState, side: Side): string {
  if (side === 'after' || state.baseService === '') return state.service;
  return state.baseService === '*' ? '' : state.baseService;
}

export function brushOf(state: UrlState, side: Side): string {
  return side === 'after' ? state.brush : state.baseBrush;
}

/** The selection in the names of the API. The brushed part, or with `whole` all of the time line. */
export function selectors(state: UrlState, side: Side, extent: 'brushed' | 'whole'): URLSearchParams {
  const fields = new URLSearchParams();
  const put = (name: string, value: string): void => {
    if (value !== '') fields.set(name, value);
  };
  put('type', state.type);
  put('service', serviceOf(state, side));
  for (const filter of FILTERS) put(filter, state[filter]);
  const brush = extent === 'brushed' ? parseBrush(brushOf(state, side)) : undefined;
  put('from', brush === undefined ? state.from : String(brush.fromMs / 1e3));
  put('to', brush === undefined ? state.to : String(brush.toMs / 1e3));
  return fields;
}

/** The range of the time line. */
export function rangeFields({ from, to }: UrlState): URLSearchParams {
  return new URLSearchParams(to === '' ? { from } : { from, to });
}

export function flamegraphPath(state: UrlState, side: Side, format: string): string {
  return `api/v1/profiles/flamegraph?format=${format}&${selectors(state, side, 'brushed').toString()}`;
}

/**
 * The graph that is drawn. Processes stand above the stacks, except where two services are compared: theirs
 * have different names, and nothing below would be seen to be the same.
 */
export function graphPath(state: UrlState, side: Side): string {
  const path = flamegraphPath(state, side, 'columnar');
  const differ = state.compare === 'on' && serviceOf(state, 'before') !== serviceOf(state, 'after');
  return differ ? `${path}&group_by=` : path;
}

/** What to ask for what is certain of a comparison. */
export function verdictsPath(state: UrlState): string {
  const fields = selectors(state, 'after', 'brushed');
  selectors(state, 'before', 'brushed').forEach((value, name) => {
    if (name !== 'type') fields.set(`base_${name}`, value);
  });
  return `api/v1/profiles/verdicts?${fields.toString()}`;
}

/** Whether the page asks again by itself. */
export function isLive(state: UrlState): boolean {
  return state.live === 'on' && state.source === '' && followsNow(state.from, state.to);
}

/** How often: a long range changes little, and takes the server longer. */
export function refreshMs(state: UrlState): number {
  const length = relativeMs(state.from) ?? 0;
  if (length <= 15 * 60e3) return 5_000;
  return length <= 3 * 3600e3 ? 15_000 : 60_000;
}

/**
 * What is compared at first: the brushed part with the same length before it; or, without a mark or where
 * nothing was kept so early, the second half of it with its first.
 */
export function firstComparison(state: UrlState, nowMs: number, firstDataMs: number): Partial<UrlState> {
  const range = parseBrush(state.brush) ?? rangeOf(state.from, state.to, nowMs);
  const from = Math.round(range.fromMs / 1e3);
  const to = Math.round(range.toMs / 1e3);
  if (state.brush !== '' && (from - (to - from)) * 1e3 >= firstDataMs) {
    return { compare: 'on', baseBrush: `${from - (to - from)}-${from}` };
  }
  const begin = Math.min(to - 2, Math.max(from, Math.floor(firstDataMs / 1e3)));
  const middle = Math.round((begin + to) / 2);
  return { compare: 'on', baseBrush: `${begin}-${middle}`, brush: `${middle}-${to}` };
}

/** The range before this one or after it, by half of its length; fixed, since it has left the present. */
export function shifted(state: UrlState, step: 1 | -1, nowMs: number): Partial<UrlState> {
  const { fromMs, toMs } = rangeOf(state.from, state.to, nowMs);
  const by = (step * (toMs - fromMs)) / 2;
  if (toMs + by >= nowMs) {
    const length = Math.round((toMs - fromMs) / 1e3);
    return { from: `-${length}s`, to: '', brush: '' };
  }
  const text = (ms: number): string => String(Math.round((ms + by) / 1e3));
  return { from: text(fromMs), to: text(toMs), brush: '' };
}

/** For a shell: what `go tool pprof` opens this selection with. */
export function pprofCommand(state: UrlState, side: Side, origin: string, nowMs: number): string {
  const fields = selectors(state, side, 'brushed');
  // The command may be run later than it was copied, and means the same then.
  const { fromMs, toMs } = parseBrush(brushOf(state, side)) ?? rangeOf(state.from, state.to, nowMs);
  fields.set('from', String(Math.floor(fromMs / 1e3)));
  fields.set('to', String(Math.ceil(toMs / 1e3)));
  return `go tool pprof -http=: '${origin}debug/pprof/profile?${fields.toString().replaceAll("'", '%27')}'`;
}

/** What to ask for the requests that ran a function, in the selection that is drawn. */
export function ranItPath(state: UrlState, name: string): string {
  const fields = selectors(state, 'after', 'brushed');
  fields.set('function', name);
  fields.set('limit', '50');
  return `api/v1/profiles/spans?${fields.toString()}`;
}
