// The requests of the picture beside it, slowest or newest first.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { outcomeOf, type ListOrder, type Requests } from '../requests/scatter';
import { durationText, outcomeText, serviceText } from './Scatter';
import { formatMoment } from './time';

const PAGE_ROWS = 100;

export function RequestList(props: {
  readonly requests: Requests;
  /** Indexes, in their order. */
  readonly listed: readonly number[];
  readonly order: ListOrder;
  readonly nowMs: number;
  readonly onOrder: (order: ListOrder) => void;
  readonly onOpen: (index: number) => void;
  readonly onPoint: (index: number) => void;
}): JSX.Element {
  const { requests, listed, order, nowMs } = props;
  const [shown, setShown] = useState(PAGE_ROWS);
  const header = (column: ListOrder, text: string): JSX.Element => (
    <th aria-sort={order === column ? 'descending' : 'none'} class={column}>
      <button type="button" onClick={() => props.onOrder(column)}>
        {text}
        {order === column ? ' ▼' : ''}
      </button>
    </th>
  );
  return (
    <div class="table-scroller requests-list" onPointerLeave={() => props.onPoint(-1)}>
      <table class="top">
        <thead>
          <tr>
            {header('slowest', 'Duration')}
            <th class="status">Status</th>
            <th>Request</th>
            {header('newest', 'Time')}
          </tr>
        </thead>
        <tbody>
          {listed.slice(0, shown).map((index) => (
            <tr key={requests.spanId[index]} onPointerEnter={() => props.onPoint(index)}>
              <td class="duration">{durationText(requests, index, nowMs)}</td>
              <td class="status">
                <span class={`outcome ${outcomeOf(requests, index)}`} aria-hidden="true" /> {outcomeText(requests, index)}
              </td>
              <td class="function">
                <button type="button" class="link" title={`${requests.name[index]!}: its trace`} onClick={() => props.onOpen(index)}>
                  {requests.name[index]}
                </button>
                <span class="muted">{serviceText(requests, index)}</span>
              </td>
              <td class="time">{formatMoment(requests.startMs[index]!, nowMs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {listed.length > shown && (
        <p class="more">
          <button type="button" onClick={() => setShown(shown + PAGE_ROWS)}>
            Show {Math.min(PAGE_ROWS, listed.length - shown)} more of {listed.length.toLocaleString('en')}
          </button>
        </p>
      )}
    </div>
  );
}
