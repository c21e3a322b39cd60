// The rows of a trace: its spans as a tree, callers above what they called, in the order of their starts.

import type { Span, Trace } from './otlp';

export interface Row {
  readonly span: Span;
  /** Steps from its outermost ancestor. */
  readonly depth: number;
  /** Whether its parent is a row, is not in this trace as it is kept here, or is none. */
  readonly parent: 'here' | 'elsewhere' | 'none';
  /** First row after everything below it. */
  readonly end: number;
}

/** Every span once, whatever its parent says: one that is its own ancestor begins a tree. */
export function rowsOf(trace: Trace): Row[] {
  const byId = new Map(trace.spans.map((span) => [span.id, span]));
  const byStart = [...trace.spans].sort(
    (one, other) => one.startNs - other.startNs || (other.endNs ?? Infinity) - (one.endNs ?? Infinity),
  );
  const children = new Map<string, Span[]>();
  const roots: Span[] = [];
  for (const span of byStart) {
    if (!byId.has(span.parentId)) {
      roots.push(span);
      continue;
    }
    const siblings = children.get(span.parentId);
    if (siblings === undefined) children.set(span.parentId, [span]);
    else siblings.push(span);
  }
  const rows: { span: Span; depth: number; parent: Row['parent']; end: number }[] = [];
  const done = new Set<Span>();
  const walk = (root: Span): void => {
    // A stack of its own: a trace may nest deeper than calls may.
    const waiting: { span: Span; depth: number }[] = [{ span: root, depth: 0 }];
    const open: number[] = [];
    const closeTo = (depth: number): void => {
      while (open.length > depth) rows[open.pop()!]!.end = rows.length;
    };
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const { span, depth } = next;
      if (done.has(span)) continue;
      done.add(span);
      closeTo(depth);
      open.push(rows.length);
      const parent = span.parentId === '' ? 'none' : byId.has(span.parentId) && depth > 0 ? 'here' : 'elsewhere';
      rows.push({ span, depth, parent, end: 0 });
      // Last first, since what is pushed last is taken first.
      for (const child of (children.get(span.id) ?? []).slice().reverse()) waiting.push({ span: child, depth: depth + 1 });
    }
    closeTo(0);
  };
  for (const root of roots) walk(root);
  for (const span of byStart) if (!done.has(span)) walk(span);
  return rows;
}

/** Without what is below collapsed rows. */
export function shownRows(rows: readonly Row[], collapsed: ReadonlySet<string>): Row[] {
  const shown: Row[] = [];
  for (let at = 0; at < rows.length; ) {
    const row = rows[at]!;
    shown.push(row);
    at = collapsed.has(row.span.id) ? row.end : at + 1;
  }
  return shown;
}

/** Whether a row has others below it. */
export function hasBelow(rows: readonly Row[], row: Row): boolean {
  return rows[row.end - 1] !== row;
}

/**
 * The part of a span during which nothing that it called ran: where it was at work itself, or waited for what
 * is no span. Spans that run beside each other count once.
 */
export function ownNs(rows: readonly Row[], at: number, untilNs: number): number {
  const row = rows[at]!;
  const [from, to] = [row.span.startNs, row.span.endNs ?? Math.max(untilNs, row.span.startNs)];
  let covered = 0;
  let reached = from;
  // Rows below are in the order of their starts, among those of one parent.
  for (let child = at + 1; child < row.end; child = rows[child]!.end) {
    const { startNs, endNs } = rows[child]!.span;
    const begin = Math.max(reached, Math.min(startNs, to));
    const end = Math.min(endNs ?? to, to);
    if (end > begin) {
      covered += end - begin;
      reached = end;
    }
  }
  return to - from - covered;
}
