// From a frame to the requests that ran it.

import type { JSX } from 'preact';

import type { Measure } from '../flamegraph/details';
import { formatShare, formatValue } from '../flamegraph/values';
import { useLoaded } from './loaded';
import { fetchRanIt } from './requestsapi';
import type { ChangeState } from './useUrlState';

const MOST_SHOWN = 12;

export function RanIt(props: {
  /** What to ask; empty while nobody has opened the list. */
  readonly path: string;
  readonly measure: Measure;
  readonly change: ChangeState;
}): JSX.Element {
  const { path, measure, change } = props;
  const loaded = useLoaded(path === '' ? undefined : path, 0, (signal) => fetchRanIt(path, signal));
  const found = loaded.key === path ? loaded.value : undefined;
  const value = (size: number): string => formatValue(size, measure.unit, measure.kind);
  return (
    <section class="ran">
      <button type="button" aria-expanded={path !== ''} onClick={() => change({ ran: path === '' ? 'on' : '' }, 'replace')}>
        Requests that ran it
      </button>
      {path !== '' && loaded.problem !== undefined && found === undefined && <p class="hint">{loaded.problem.message}</p>}
      {path !== '' && loaded.problem === undefined && found === undefined && <p class="hint">Asking …</p>}
      {found !== undefined && (
        <>
          <p class="hint">
            {found.count === 0
              ? 'None: no sample with it belongs to a request.'
              : `${formatShare(found.stamped, found.total)} of its time belongs to ${found.count === 1 ? 'one request' : `${found.count.toLocaleString('en')} requests`}.`}
          </p>
          <ul class="frames">
            {found.spans.slice(0, MOST_SHOWN).map((span) => (
              <li key={`${span.traceId} ${span.spanId}`}>
                <button
                  type="button"
                  class="link"
                  title={`${span.name === '' ? 'A request that is not kept' : `${span.name} of ${span.service || 'an unknown service'}`}: ${value(span.value)} in ${span.samples} samples`}
                  onClick={() => change({ page: 'requests', trace: span.traceId, span: span.spanId, zoom: '', selected: '' })}
                >
                  <span class="name">{span.name === '' ? span.spanId : span.name}</span>
                  <span class="figure">
                    {value(span.value)}
                    {Number.isNaN(span.durationNs) ? '' : ` of ${formatValue(span.durationNs, 'nanoseconds')}`}
                  </span>
                </button>
              </li>
            ))}
          </ul>
          {found.count > MOST_SHOWN && <p class="more">and {(found.count - MOST_SHOWN).toLocaleString('en')} more</p>}
        </>
      )}
    </section>
  );
}
