import type { JSX } from 'preact';

import type { FlameGraph } from '../flamegraph/graph';
import { placeOfHit, type SearchResult } from '../flamegraph/search';
import { formatShare } from '../flamegraph/values';

export function SearchBox(props: {
  readonly box: { current: HTMLInputElement | null };
  readonly text: string;
  readonly problem: string | undefined;
  readonly graph: FlameGraph;
  readonly result: SearchResult | undefined;
  readonly selected: number;
  readonly onText: (text: string) => void;
  readonly onJump: (step: 1 | -1) => void;
}): JSX.Element {
  const { result, graph, selected } = props;
  const count = result?.hits.length ?? 0;
  const at = result?.isHit[selected] === 1 ? placeOfHit(result, selected) + 1 : 0;
  return (
    <div class={`search${props.problem === undefined ? '' : ' invalid'}`} role="search">
      <input
        ref={props.box}
        type="search"
        value={props.text}
        placeholder="Search a function, /regex/, module:…"
        aria-label="Search"
        aria-invalid={props.problem !== undefined}
        spellcheck={false}
        onInput={(event) => props.onText(event.currentTarget.value)}
        onKeyDown={(event) => {
          event.stopPropagation();
          if (event.key === 'Enter') props.onJump(event.shiftKey ? -1 : 1);
          if (event.key === 'Escape') {
            if (props.text !== '') props.onText('');
            else document.querySelector<HTMLElement>('.flamegraph-scroller')?.focus();
          }
        }}
      />
      <output title={props.problem}>
        {props.problem !== undefined
          ? 'not a regular expression'
          : result === undefined
            ? ''
            : count === 0
              ? 'no hit'
              : `${formatShare(result.value, graph.total[0]!)} · ${at > 0 ? `${at} of ` : ''}${count.toLocaleString('en')}`}
      </output>
      {count > 0 && (
        <>
          <button type="button" aria-label="Previous hit" title="Previous hit (p)" onClick={() => props.onJump(-1)}>
            ‹
          </button>
          <button type="button" aria-label="Next hit" title="Next hit (n)" onClick={() => props.onJump(1)}>
            ›
          </button>
        </>
      )}
    </div>
  );
}
