// What is said about one node, in words and figures: the tooltip, the panel and the screen reader show
// parts of this. Shares are of everything and of the zoomed node; neither changes with a search.

import { changeOf, type DiffGraph } from './diff';
import { FrameClass, childrenOf, isCode, isWithin, pathTo, type FlameGraph, type Frame } from './graph';
import { formatChange, formatShare, formatValue } from './values';
import { markText, verdictRows } from './verdicts';

export interface Measure {
  /** What the values count (`cpu`), and their unit. */
  readonly kind: string;
  readonly unit: string;
}

export interface Details {
  readonly name: string;
  /** What sort of code it is, in a word or two. */
  readonly sort: string;
  /** `file:line`, empty if unknown. */
  readonly source: string;
  readonly module: string;
  readonly buildId: string;
  /** An explanation, of frames that stand for something missing, or that are not quite certain. */
  readonly note: string;
  /** Of a comparison the value after; the self value is then empty. */
  readonly total: string;
  readonly self: string;
  readonly totalOfAll: string;
  readonly selfOfAll: string;
  /** Empty while nothing is zoomed, and outside of the zoomed node. */
  readonly totalOfZoom: string;
  /** Rows of a comparison: name, figure. */
  readonly change: readonly (readonly [string, string])[];
  /** Rows of what is certain of it; empty where nothing is known of that. */
  readonly verdict: readonly (readonly [string, string])[];
}

const SORTS: Readonly<Record<number, string>> = {
  [FrameClass.Root]: 'everything',
  [FrameClass.Native]: 'native',
  [FrameClass.Inlined]: 'inlined',
  [FrameClass.Kernel]: 'kernel',
  [FrameClass.Jit]: 'JIT',
  [FrameClass.Interpreter]: 'interpreted',
  [FrameClass.Label]: 'label',
  [FrameClass.Incomplete]: 'incomplete stack',
  [FrameClass.Smaller]: 'smaller stacks',
};

const APPROXIMATE =
  'Of some samples the runtime does not say which functions are inlined at the very instruction, or its line: those of ' +
  'the nearest place before it that it does say were taken.';

export function sortOf(frame: Frame): string {
  if (frame.frameClass === FrameClass.Label) return frame.module === 'comm' ? 'process' : frame.module || 'label';
  const approximate = frame.approximate ? ', in part approximate' : '';
  return SORTS[frame.frameClass]! + (frame.unnamed ? ', no name found' : '') + approximate;
}

export function sourceOf(frame: Frame): string {
  if (frame.file === '') return '';
  return frame.line > 0 ? `${frame.file}:${frame.line}` : frame.file;
}

export function detailsOf(
  graph: FlameGraph,
  node: number,
  zoom: number,
  measure: Measure,
  comparison?: DiffGraph,
): Details {
  const frame = graph.frames[graph.frame[node]!]!;
  const explains = frame.frameClass === FrameClass.Incomplete || frame.frameClass === FrameClass.Smaller;
  // The values of a comparison's graph are widths; what is said are values.
  const values = comparison === undefined ? graph.total : comparison.after;
  const all = values[0]!;
  const total = values[node]!;
  const self = graph.self[node]!;
  const change: (readonly [string, string])[] = [];
  if (comparison !== undefined) {
    const { before, after, absolute, points, percent } = changeOf(comparison, node);
    const value = (size: number): string => formatValue(size, measure.unit, measure.kind);
    change.push(
      ['A, baseline', `${value(before)} (${formatShare(before, comparison.before[0]!)})`],
      ['B', `${value(after)} (${formatShare(after, comparison.after[0]!)})`],
      ['change', `${absolute > 0 ? '+' : ''}${value(absolute)}`],
      ['change of share', `${points > 0 ? '+' : ''}${formatShare(points, 100).replace('%', 'points')}`],
      [comparison.mode === 'share' ? 'relative, by share' : 'relative', formatChange(percent)],
    );
  }
  return {
    name: frame.name,
    sort: sortOf(frame),
    source: sourceOf(frame),
    module: isCode(frame) ? frame.module : '',
    buildId: frame.buildId,
    note: explains ? frame.module : frame.approximate ? APPROXIMATE : '',
    total: formatValue(total, measure.unit, measure.kind),
    self: comparison === undefined ? formatValue(self, measure.unit, measure.kind) : '',
    totalOfAll: formatShare(total, all),
    selfOfAll: comparison === undefined ? formatShare(self, all) : '',
    totalOfZoom: zoom !== 0 && isWithin(graph, node, zoom) ? formatShare(total, values[zoom]!) : '',
    change,
    verdict: comparison === undefined ? [] : verdictRows(comparison, node),
  };
}

/** An element of the tree that screen readers are given. */
export interface TreeItem {
  readonly node: number;
  readonly label: string;
  /** From 1, as ARIA counts. */
  readonly level: number;
  /** `undefined` for a leaf. */
  readonly expanded: boolean | undefined;
  readonly selected: boolean;
  readonly position: number;
  readonly setSize: number;
}

/** Callees beyond these are told as one number: nobody listens to a thousand. */
const MAX_CALLEES = 20;

/** The path from the root to the selected node and its widest callees. */
export function treeItems(
  graph: FlameGraph,
  selected: number,
  zoom: number,
  measure: Measure,
  comparison?: DiffGraph,
): TreeItem[] {
  const path = pathTo(graph, selected);
  const item = (node: number, expanded: boolean): TreeItem => {
    const siblings = node === 0 ? [0] : byWidth(graph, graph.parent[node]!);
    const details = detailsOf(graph, node, zoom, measure, comparison);
    const words = [details.name, `${details.totalOfAll} of all`, details.total];
    if (details.totalOfZoom !== '') words.push(`${details.totalOfZoom} of the zoomed frame`);
    if (details.sort !== 'native') words.push(details.sort);
    const change = details.change.at(-1);
    if (change !== undefined) words.push(`${change[1]} ${change[0]}`);
    const mark = comparison === undefined ? '' : markText(comparison, node);
    if (mark !== '') words.push(mark);
    return {
      node,
      label: words.join(', '),
      level: graph.depth[node]! + 1,
      expanded: graph.end[node]! > node + 1 ? expanded : undefined,
      selected: node === selected,
      position: siblings.indexOf(node) + 1,
      setSize: siblings.length,
    };
  };
  const items = path.map((node) => item(node, true));
  for (const child of byWidth(graph, selected).slice(0, MAX_CALLEES)) items.push(item(child, false));
  return items;
}

function byWidth(graph: FlameGraph, parent: number): number[] {
  return childrenOf(graph, parent).sort((one, other) => graph.total[other]! - graph.total[one]!);
}
