// Functions by what was spent in them, and below them.

import type { JSX } from 'preact';
import { useMemo, useState } from 'preact/hooks';

import { frameColour, type Theme } from '../flamegraph/colours';
import { sortOf, type Measure } from '../flamegraph/details';
import type { DiffGraph } from '../flamegraph/diff';
import { functionTotals, functionsOf } from '../flamegraph/functions';
import { FrameClass, type FlameGraph, type Frame } from '../flamegraph/graph';
import type { Query } from '../flamegraph/search';
import { fileName, formatShare, formatValue } from '../flamegraph/values';
import { certainty, lineText, type FunctionVerdict } from '../flamegraph/verdicts';
import type { TableOrder } from './urlstate';

/** Rows are added by so many; a browser lays a hundred thousand out for seconds. */
const PAGE_ROWS = 200;

export interface TopRow {
  readonly id: number;
  readonly self: number;
  readonly total: number;
  /** Of a comparison: after minus before, in shares of each side. */
  readonly change: number;
}

export function topRows(graph: FlameGraph, query: Query | undefined, order: TableOrder, comparison?: DiffGraph): TopRow[] {
  const { self, total } = functionTotals(graph);
  const { frameOf } = functionsOf(graph.frames);
  const sides =
    comparison === undefined
      ? undefined
      : [comparison.before, comparison.after].map((totals) => {
          const whole = totals[0]!;
          const side = functionTotals(graph, totals).total;
          return side.map((value) => (whole > 0 ? value / whole : 0));
        });
  const rows: TopRow[] = [];
  frameOf.forEach((frameIndex, id) => {
    const frame = graph.frames[frameIndex]!;
    // Only what is code can be spent time in.
    if (frame.frameClass === FrameClass.Root || frame.frameClass === FrameClass.Label) return;
    if (frame.frameClass === FrameClass.Incomplete) return;
    if (query?.ok === true && !query.matches(frame)) return;
    if (total[id] === 0) return;
    const change = sides === undefined ? 0 : sides[1]![id]! - sides[0]![id]!;
    rows.push({ id, self: self[id]!, total: total[id]!, change });
  });
  const name = (row: TopRow): string => graph.frames[frameOf[row.id]!]!.name;
  const byName = (one: TopRow, other: TopRow): number => (name(one) < name(other) ? -1 : 1);
  switch (order) {
    case 'self':
      return comparison === undefined
        ? rows.sort((one, other) => other.self - one.self || other.total - one.total || byName(one, other))
        : rows.sort((one, other) => Math.abs(other.change) - Math.abs(one.change) || byName(one, other));
    case 'total':
      return rows.sort((one, other) => other.total - one.total || byName(one, other));
    case 'name':
      return rows.sort(byName);
  }
}

export function TopTable(props: {
  readonly graph: FlameGraph;
  readonly comparison: DiffGraph | undefined;
  readonly measure: Measure;
  readonly theme: Theme;
  readonly order: TableOrder;
  readonly query: Query | undefined;
  readonly onOrder: (order: TableOrder) => void;
  readonly onFunction: (frame: Frame) => void;
}): JSX.Element {
  const { graph, comparison, measure, order, query, theme } = props;
  const [shown, setShown] = useState(PAGE_ROWS);
  const rows = useMemo(() => topRows(graph, query, order, comparison), [graph, query, order, comparison]);
  const { frameOf } = functionsOf(graph.frames);
  const all = graph.total[0]!;
  const header = (column: TableOrder, text: string): JSX.Element => (
    <th aria-sort={order === column ? (column === 'name' ? 'ascending' : 'descending') : 'none'} class={column}>
      <button type="button" onClick={() => props.onOrder(column)}>
        {text}
        {order === column ? (column === 'name' ? ' ▲' : ' ▼') : ''}
      </button>
    </th>
  );
  const amount = (value: number): JSX.Element => (
    <td class="amount">
      <span class="bar-of" style={{ width: `${(100 * value) / all}%` }} />
      <span class="value">{comparison === undefined ? formatValue(value, measure.unit, '') : ''}</span>
      <span class="share">{formatShare(value, all)}</span>
    </td>
  );
  return (
    <div class="table-scroller">
      <table class="top">
        <thead>
          <tr>
            {header('self', comparison === undefined ? 'Self' : 'Change of share')}
            {comparison?.marks !== undefined && <th class="verdict">Verdict</th>}
            {header('total', comparison === undefined ? 'Total' : 'Both sides')}
            {header('name', 'Function')}
            <th class="module">Module</th>
            <th class="kind">Kind</th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, shown).map((row) => {
            const frame = graph.frames[frameOf[row.id]!]!;
            return (
              <tr key={row.id}>
                {comparison === undefined ? (
                  amount(row.self)
                ) : (
                  <td class={`amount ${row.change > 0 ? 'grew' : 'shrank'}`}>
                    <span class="share">
                      {row.change > 0 ? '+' : ''}
                      {formatShare(row.change, 1)}
                    </span>
                  </td>
                )}
                {comparison?.marks !== undefined && <VerdictCell verdict={comparison.marks.verdictOf(frameOf[row.id]!)} />}
                {amount(row.total)}
                <td class="function">
                  <button type="button" class="link" title={frame.name} onClick={() => props.onFunction(frame)}>
                    <span class="swatch" style={{ background: frameColour(frame, theme) }} />
                    {frame.name}
                  </button>
                </td>
                <td class="module" title={frame.module}>
                  {fileName(frame.module)}
                </td>
                <td class="kind">{sortOf(frame)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length === 0 && <p class="more">No function matches.</p>}
      {rows.length > shown && (
        <p class="more">
          <button type="button" onClick={() => setShown(shown + PAGE_ROWS)}>
            Show {Math.min(PAGE_ROWS, rows.length - shown)} more of {rows.length.toLocaleString('en')}
          </button>
        </p>
      )}
    </div>
  );
}

/** Whether the change of a function is certain. */
function VerdictCell({ verdict }: { readonly verdict: FunctionVerdict | undefined }): JSX.Element {
  if (verdict === undefined) return <td class="verdict">not judged</td>;
  const certain = certainty(verdict);
  const lines = [verdict.total, verdict.self].filter((line) => line !== undefined);
  const title = lines.map(lineText).join(' · ');
  return (
    <td class={`verdict${certain === 0 ? '' : ' certain'}`} title={title}>
      {certain > 0 ? '▲ certain' : certain < 0 ? '▼ certain' : verdict.movedFrom !== '' ? 'moved' : 'within noise'}
    </td>
  );
}
