// What is known of the selected frame, the way to it, and what the colours mean.

import type { JSX } from 'preact';
import { useMemo } from 'preact/hooks';

import { LEGEND, changeColour, frameColour, legendColour, type Theme } from '../flamegraph/colours';
import { detailsOf, type Measure } from '../flamegraph/details';
import { changeOf, type DiffGraph } from '../flamegraph/diff';
import { FigureTable } from '../flamegraph/FigureTable';
import { FrameClass, childrenOf, type FlameGraph, type Frame } from '../flamegraph/graph';
import { shortName } from '../flamegraph/names';
import { unwindingOf } from '../flamegraph/quality';
import { formatShare } from '../flamegraph/values';
import { RanIt } from './RanIt';
import type { ChangeState } from './useUrlState';

const MAX_CALLEES = 8;

export function DetailPanel(props: {
  readonly graph: FlameGraph;
  readonly comparison: DiffGraph | undefined;
  readonly measure: Measure;
  readonly theme: Theme;
  readonly zoom: number;
  readonly node: number;
  readonly onSelect: (node: number) => void;
  readonly onSandwich: () => void;
  /** Asked about with the requests that ran the frame; `undefined` where that makes no sense. */
  readonly ranPath: ((name: string) => string) | undefined;
  readonly change: ChangeState;
}): JSX.Element {
  const { graph, node, theme } = props;
  const details = detailsOf(graph, node, props.zoom, props.measure, props.comparison);
  const callees = useMemo(
    () => childrenOf(graph, node).sort((one, other) => graph.total[other]! - graph.total[one]!),
    [graph, node],
  );
  const present = useMemo(() => {
    const classes = new Set(graph.frames.map((frame) => `${frame.frameClass} ${frame.unnamed}`));
    return LEGEND.filter(([, frameClass, unnamed]) => classes.has(`${frameClass} ${unnamed}`));
  }, [graph]);
  const caller = node === 0 ? undefined : graph.parent[node]!;
  const rows: (readonly [string, string])[] = [
    ['source', details.source],
    ['module', details.module],
    ['build id', details.buildId],
    ['unwinding', props.comparison === undefined ? unwindingText(graph, node) : ''],
  ];
  return (
    <aside class="panel" aria-label="Selected frame">
      <h2>{details.name}</h2>
      <p class="sort">
        {props.comparison === undefined && (
          <span class="swatch" style={{ background: frameColour(graph.frames[graph.frame[node]!]!, theme) }} />
        )}
        {details.sort}
      </p>
      {details.note !== '' && <p class="note">{details.note}</p>}
      <FigureTable details={details} />
      <dl class="facts">
        {rows
          .filter(([, text]) => text !== '')
          .map(([label, text]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd title={text}>{text}</dd>
            </div>
          ))}
      </dl>
      {node !== 0 && (
        <p class="actions">
          <button type="button" onClick={props.onSandwich}>
            Callers and callees
          </button>
        </p>
      )}
      {props.ranPath !== undefined && isCode(graph.frames[graph.frame[node]!]!) && (
        <RanIt path={props.ranPath(details.name)} measure={props.measure} change={props.change} />
      )}
      {caller !== undefined && (
        <section>
          <h3>called by</h3>
          <FrameLinks graph={graph} nodes={[caller]} comparison={props.comparison} theme={theme} onSelect={props.onSelect} />
        </section>
      )}
      {callees.length > 0 && (
        <section>
          <h3>calls</h3>
          <FrameLinks
            graph={graph}
            nodes={callees.slice(0, MAX_CALLEES)}
            comparison={props.comparison}
            theme={theme}
            onSelect={props.onSelect}
          />
          {callees.length > MAX_CALLEES && <p class="more">and {callees.length - MAX_CALLEES} more</p>}
        </section>
      )}
      <section class="legend">
        <h3>colours</h3>
        <ul>
          {props.comparison === undefined ? (
            present.map(([label, frameClass, unnamed]) => (
              <li key={label}>
                <span class="swatch" style={{ background: legendColour(frameClass, unnamed, theme) }} />
                {label}
              </li>
            ))
          ) : (
            <>
              <li>
                <span class="swatch grew" /> more in B
              </li>
              <li>
                <span class="swatch shrank" /> less in B
              </li>
              {props.comparison.marks !== undefined && (
                <>
                  <li>
                    <span class="swatch certain" /> ▲ ▼ certain
                  </li>
                  <li>
                    <span class="swatch noise" /> within noise
                  </li>
                  <li>
                    <span class="swatch unjudged" /> not judged
                  </li>
                </>
              )}
            </>
          )}
        </ul>
      </section>
    </aside>
  );
}

/** Whether it is a function that somebody may have run. */
function isCode({ frameClass }: Frame): boolean {
  return frameClass !== FrameClass.Root && frameClass !== FrameClass.Label && frameClass !== FrameClass.Incomplete;
}

/** How the walks ended of the stacks that go through a node. */
function unwindingText(graph: FlameGraph, node: number): string {
  const unwinding = unwindingOf(graph, node);
  switch (unwinding.state) {
    case 'complete':
      return 'complete';
    case 'incomplete':
      return `${unwinding.reason} ${unwinding.sentence}`;
    case 'partly':
      return `${formatShare(graph.total[node]! - unwinding.incomplete, graph.total[node]!)} complete`;
  }
}

function FrameLinks(props: {
  readonly graph: FlameGraph;
  readonly nodes: readonly number[];
  readonly comparison: DiffGraph | undefined;
  readonly theme: Theme;
  readonly onSelect: (node: number) => void;
}): JSX.Element {
  const { graph, comparison } = props;
  const figureOf = (node: number): string => {
    if (comparison === undefined) return formatShare(graph.total[node]!, graph.total[0]!);
    const { points } = changeOf(comparison, node);
    return `${points > 0 ? '+' : ''}${formatShare(points, 100)}`;
  };
  return (
    <ul class="frames">
      {props.nodes.map((node) => {
        const frame = graph.frames[graph.frame[node]!]!;
        return (
          <li key={node}>
            <button type="button" class="link" title={frame.name} onClick={() => props.onSelect(node)}>
              <span
                class="swatch"
                style={{
                  background:
                    comparison === undefined
                      ? frameColour(frame, props.theme)
                      : changeColour(changeOf(comparison, node).balance, props.theme),
                }}
              />
              <span class="name">{shortName(frame.name)}</span>
              <span class="figure">{figureOf(node)}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}
