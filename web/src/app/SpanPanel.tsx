// What is known of one span.

import type { JSX } from 'preact';

import { formatValue } from '../flamegraph/values';
import { factsOf, otherAttributes } from '../requests/facts';
import type { Trace } from '../requests/otlp';
import type { Row } from '../requests/waterfall';

export function SpanPanel(props: {
  readonly trace: Trace;
  readonly row: Row;
  /** The part during which nothing that it called ran. */
  readonly own: number;
}): JSX.Element {
  const { row } = props;
  const { span } = row;
  const ns = (value: number): string => formatValue(value, 'nanoseconds');
  return (
    <aside class="panel span-panel" aria-label="Selected span">
      <h2>{span.name}</h2>
      <p class="sort">
        {span.service || 'unknown service'} · {span.kind}
        {span.isError && <strong class="failed"> · error</strong>}
      </p>
      <table class="figures">
        <tbody>
          <tr>
            <th>duration</th>
            <td>{span.endNs === undefined ? 'still running' : ns(span.endNs - span.startNs)}</td>
          </tr>
          <tr>
            <th>while nothing it called ran</th>
            <td>{ns(props.own)}</td>
          </tr>
          <tr>
            <th>begins</th>
            <td>{span.startNs === 0 ? 'with the trace' : `+${ns(span.startNs)}`}</td>
          </tr>
        </tbody>
      </table>
      <Facts rows={factsOf(row).map(({ label, text, unknown }) => [label, text, unknown === true] as const)} />
      {span.statusMessage !== '' && <p class="note">{span.statusMessage}</p>}
      {span.events.length > 0 && (
        <section>
          <h3>events</h3>
          <ul>
            {span.events.map((event, place) => (
              <li key={place} title={event.attributes.map(([name, text]) => `${name}: ${text}`).join('\n')}>
                +{ns(event.atNs - span.startNs)} {event.name}
              </li>
            ))}
          </ul>
        </section>
      )}
      {otherAttributes(span).length > 0 && (
        <section>
          <h3>more attributes</h3>
          <Facts long rows={otherAttributes(span).map(([name, text]) => [name, text, false] as const)} />
        </section>
      )}
      <section>
        <h3>resource</h3>
        <Facts long rows={span.resource.map(([name, text]) => [name, text, false] as const)} />
      </section>
    </aside>
  );
}

function Facts(props: { readonly long?: boolean; readonly rows: readonly (readonly [string, string, boolean])[] }): JSX.Element {
  return (
    <dl class={props.long === true ? 'facts long' : 'facts'}>
      {props.rows.map(([label, text, unknown], place) => (
        <div key={`${label} ${place}`}>
          <dt>{label}</dt>
          <dd title={text}>{unknown ? <span class="unknown">unknown: {text}</span> : text}</dd>
        </div>
      ))}
    </dl>
  );
}
