// What statistics say of the frames of a comparison. The server decides about functions, wherever they are
// called; a frame shows what is said of its function, if its own place has changed in that direction too.

import { changeOf, type DiffGraph } from './diff';
import { functionKey } from './functions';
import { isCode, type Frame } from './graph';
import { formatChange, formatShare } from './values';

export type Verdict = 'regressed' | 'improved' | 'unchanged' | 'inconclusive' | 'moved';

/** Of a function by itself, or with all that it calls. Effects are relative: 0.2 is +20 %. */
export interface LineVerdict {
  readonly verdict: Verdict;
  /** `undefined` if there is (nearly) nothing of it on side A. */
  readonly effect: number | undefined;
  /** 95 % confidence interval; an end that is not bounded is `undefined`. */
  readonly low: number | undefined;
  readonly high: number | undefined;
  /** The smallest increase that would have been found in four of five such comparisons. */
  readonly smallestEffect: number | undefined;
}

export interface FunctionVerdict {
  readonly name: string;
  /** What it was called; empty if it has not moved. */
  readonly movedFrom: string;
  readonly self: LineVerdict | undefined;
  readonly total: LineVerdict | undefined;
}

export interface Verdicts {
  readonly decided: boolean;
  /** Why not, as a sentence. */
  readonly reason: string;
  /** Functions of a smaller share on both sides are not judged. */
  readonly minShare: number;
  /** Stretches of a side, each of which counted as one run. */
  readonly stretches: number;
  /** By {@link functionKey} of the frames. */
  readonly ofFrame: ReadonlyMap<string, FunctionVerdict>;
  /** Functions that were judged. */
  readonly functions: readonly FunctionVerdict[];
}

/** What a frame is marked with. */
export const Mark = {
  /** Nothing is said of it. */
  None: 0,
  /** Its function was judged, and no change could be shown. */
  Noise: 1,
  /** Its function has certainly changed, and it with it. */
  Certain: 2,
} as const;
export type Mark = (typeof Mark)[keyof typeof Mark];

/** 1 if a function has certainly a greater share, -1 if a smaller one, 0 if neither is certain. */
export function certainty(verdict: FunctionVerdict): 1 | 0 | -1 {
  // The box is as wide as the function with all that it calls.
  for (const line of [verdict.total, verdict.self]) {
    if (line?.verdict === 'regressed') return 1;
    if (line?.verdict === 'improved') return -1;
  }
  return 0;
}

/** The marks of a comparison's frames, looked up once for each frame of the table. */
export class Marks {
  private readonly byFrame: readonly (FunctionVerdict | undefined)[];

  constructor(
    frames: readonly Frame[],
    readonly verdicts: Verdicts,
  ) {
    this.byFrame = frames.map((frame) =>
      frame.unnamed || !isCode(frame) ? undefined : verdicts.ofFrame.get(functionKey(frame)),
    );
  }

  /** What is said of a frame's function; `frame` is its number in the table. */
  verdictOf(frame: number): FunctionVerdict | undefined {
    return this.byFrame[frame];
  }

  markOf(comparison: DiffGraph, node: number): Mark {
    const verdict = this.byFrame[comparison.graph.frame[node]!];
    if (verdict === undefined) return Mark.None;
    const certain = certainty(verdict);
    if (certain === 0) return Mark.Noise;
    return Math.sign(changeOf(comparison, node).points) === certain ? Mark.Certain : Mark.None;
  }

  /** The next frame that is marked as certain, depth first from `from` and around; -1 if there is none. */
  nextCertain(comparison: DiffGraph, from: number, step: 1 | -1): number {
    const { nodeCount } = comparison.graph;
    for (let steps = 1; steps <= nodeCount; steps++) {
      const node = (from + step * steps + nodeCount * 2) % nodeCount;
      if (this.markOf(comparison, node) === Mark.Certain) return node;
    }
    return -1;
  }
}

/** What a screen reader says of a mark, and the tooltip in its first row. */
export function markText(comparison: DiffGraph, node: number): string {
  const { marks, graph } = comparison;
  if (marks === undefined) return '';
  const verdict = marks.verdictOf(graph.frame[node]!);
  if (verdict === undefined) return '';
  const certain = certainty(verdict);
  const word = certain > 0 ? 'more' : 'less';
  switch (marks.markOf(comparison, node)) {
    case Mark.Certain:
      return `certainly ${word}`;
    case Mark.None:
      return `the function takes certainly ${word}, this place of it does not`;
    case Mark.Noise:
      if (verdict.movedFrom !== '') return `moved, was ${verdict.movedFrom}`;
      return (verdict.total ?? verdict.self)?.verdict === 'unchanged' ? 'within noise, shown to be unchanged' : 'within noise';
  }
}

/** Rows of figures about a node's function: name, figure. Empty where there are no marks at all. */
export function verdictRows(comparison: DiffGraph, node: number): readonly (readonly [string, string])[] {
  const { marks, graph } = comparison;
  if (marks === undefined || node === 0) return [];
  const frame = graph.frames[graph.frame[node]!]!;
  if (!isCode(frame)) return [];
  const verdict = marks.verdictOf(graph.frame[node]!);
  if (verdict === undefined) return [['verdict', `not judged: ${whyNot(frame, marks.verdicts)}`]];
  const rows: (readonly [string, string])[] = [['verdict', markText(comparison, node)]];
  if (verdict.total !== undefined) rows.push(['function, with callees', lineText(verdict.total)]);
  if (verdict.self !== undefined) rows.push(['function itself', lineText(verdict.self)]);
  const line = verdict.total ?? verdict.self;
  if (line?.verdict === 'inconclusive' && line.smallestEffect !== undefined) {
    rows.push(['would have been seen', `from ${percent(line.smallestEffect)}`]);
  }
  return rows;
}

function whyNot(frame: Frame, verdicts: Verdicts): string {
  if (frame.unnamed) return 'it has no name';
  return `below ${formatShare(verdicts.minShare, 1)}, or on (nearly) every stack`;
}

/** `+52.0 % (95 %: +45.1 % to +60.3 %)`. */
export function lineText(line: LineVerdict): string {
  if (line.effect === undefined) return 'new';
  if (line.effect <= -1) return 'gone';
  const { low, high } = line;
  if (low === undefined) return percent(line.effect);
  return `${percent(line.effect)} (95 %: ${percent(low)} to ${high === undefined ? 'any' : percent(high)})`;
}

const percent = (effect: number): string => formatChange(effect * 100);

/** What is said of the whole in a line: how many functions were judged, and how many have certainly changed. */
export function summaryOf(verdicts: Verdicts): string {
  if (!verdicts.decided) return `No marks: ${verdicts.reason}`;
  const judged = verdicts.functions.length;
  const certain = verdicts.functions.filter((one) => certainty(one) !== 0).length;
  const noise = judged - certain;
  return `${certain === 0 ? 'No function has' : certain === 1 ? '1 function has' : `${certain} functions have`} certainly changed, ${noise} within noise`;
}
