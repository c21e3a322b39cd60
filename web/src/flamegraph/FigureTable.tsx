// The figures of one node, as the tooltip and the panel show them.

import type { JSX } from 'preact';

import type { Details } from './details';

/** Total and self, or of a comparison both sides and what changed between them. */
export function FigureTable(props: { readonly details: Details }): JSX.Element {
  const { details } = props;
  if (details.change.length > 0) {
    return (
      <table class="figures">
        <tbody>
          {[...details.change, ...details.verdict].map(([label, figure]) => (
            <tr key={label} class={label === 'verdict' ? 'verdict' : undefined}>
              <th>{label}</th>
              <td>{figure}</td>
            </tr>
          ))}
        </tbody>
      </table>
    );
  }
  const isZoomed = details.totalOfZoom !== '';
  return (
    <table class="figures">
      <thead>
        <tr>
          <th />
          <th>value</th>
          <th>of all</th>
          {isZoomed && <th>of zoomed</th>}
        </tr>
      </thead>
      <tbody>
        <tr>
          <th>total</th>
          <td>{details.total}</td>
          <td>{details.totalOfAll}</td>
          {isZoomed && <td>{details.totalOfZoom}</td>}
        </tr>
        <tr>
          <th>self</th>
          <td>{details.self}</td>
          <td>{details.selfOfAll}</td>
          {isZoomed && <td />}
        </tr>
      </tbody>
    </table>
  );
}
