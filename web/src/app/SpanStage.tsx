// The flame graph of one span.

import type { JSX } from 'preact';

import type { Command } from '../flamegraph/keyboard';
import { formatValue } from '../flamegraph/values';
import type { Span } from '../requests/otlp';
import type { PageProps } from './Bar';
import { Explorer } from './Explorer';
import { Failure } from './Failure';
import { useLoaded } from './loaded';
import { Message } from './Message';
import { fetchSpanGraph, spanGraphPath } from './requestsapi';

export function SpanStage(
  props: PageProps & {
    readonly traceId: string;
    readonly span: Span;
    readonly nowMs: number;
    readonly tick: number;
    readonly explorerKeys: { current: ((command: Command) => void) | undefined };
  },
): JSX.Element {
  const { span, change, explorerKeys } = props;
  const path = spanGraphPath(props.traceId, span.id);
  // The samples of a window come some seconds after the span.
  const graph = useLoaded(path, props.tick, (signal) => fetchSpanGraph(path, signal));
  const isOther = graph.key !== path;
  if (graph.problem !== undefined && (graph.value === undefined || isOther)) {
    explorerKeys.current = undefined;
    return <Failure problem={graph.problem} what="flame graph of this span" onAfresh={() => change({ trace: '', span: '' })} />;
  }
  if (graph.value === undefined || (isOther && graph.value.file.graph.total[0] === 0)) {
    explorerKeys.current = undefined;
    return <Message tone="busy" title="Loading the flame graph of the span" />;
  }
  const { file, reason } = graph.value;
  if (file.graph.total[0] === 0) {
    explorerKeys.current = undefined;
    const lasted = span.endNs === undefined ? undefined : span.endNs - span.startNs;
    const why = reason !== '' ? reason : lasted === undefined ? 'It still runs' : `In its ${formatValue(lasted, 'nanoseconds')} no sample was taken of it`;
    const sentence = `${why.charAt(0).toUpperCase()}${why.slice(1).replace(/\.$/, '')}`;
    return <Message title="Nothing sampled in this span" text={`${sentence}. A sample is taken of what runs on a CPU; what waits has none.`} />;
  }
  return (
    <div class="span-stage">
      <Explorer
        file={file}
        base={undefined}
        state={props.state}
        change={change}
        theme={props.theme}
        nowMs={props.nowMs}
        stale={isOther}
        keys={explorerKeys}
        onCommand={props.onCommand}
      />
    </div>
  );
}
