// The selection as files for other tools, and as a command.

import type { JSX } from 'preact';
import { useRef, useState } from 'preact/hooks';

import { serverUrl } from './api';
import { Popover } from './Popover';
import { flamegraphPath, pprofCommand } from './selection';
import type { UrlState } from './urlstate';

const FORMATS: readonly (readonly [string, string, string])[] = [
  ['pprof', 'pb.gz', 'pprof'],
  ['svg', 'svg', 'Flame graph, SVG'],
  ['folded', 'folded', 'Folded stacks'],
  ['speedscope', 'speedscope.json', 'speedscope'],
  ['otlp', 'otlp', 'OpenTelemetry profiles'],
  ['json', 'json', 'Tree, JSON'],
];

export function Downloads(props: {
  readonly state: UrlState;
  readonly nowMs: number;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
}): JSX.Element {
  const { state } = props;
  const compared = state.compare === 'on';
  const command = pprofCommand(state, 'after', serverUrl(), props.nowMs);
  const name = (state.service || 'host').replace(/[^\w.-]+/g, '-').slice(0, 80);
  return (
    <Popover
      name="downloads"
      title="Download"
      open={props.open}
      onOpen={props.onOpen}
      face={
        <>
          Download
          <span class="caret" aria-hidden="true" />
        </>
      }
    >
      {(compared ? (['after', 'before'] as const) : (['after'] as const)).map((side) => (
        <section key={side}>
          {compared && <h3>{side === 'after' ? 'B, compared' : 'A, baseline'}</h3>}
          <ul class="files">
            {FORMATS.map(([format, ending, text], place) => (
              <li key={format}>
                <a
                  data-first={side === 'after' && place === 0 ? '' : undefined}
                  href={flamegraphPath(state, side, format)}
                  download={`${name}.${ending}`}
                >
                  <span>{text}</span>
                  <span class="muted">.{ending}</span>
                </a>
              </li>
            ))}
          </ul>
        </section>
      ))}
      <h3>In a terminal</h3>
      <Copyable text={command} />
      <p class="hint">If this server asks for a token, put x:TOKEN@ in front of the host.</p>
    </Popover>
  );
}

export function Copyable(props: { readonly text: string }): JSX.Element {
  const field = useRef<HTMLTextAreaElement>(null);
  const [said, setSaid] = useState('');
  const copy = async (): Promise<void> => {
    field.current?.select();
    try {
      // Not there without TLS, except on this host.
      await navigator.clipboard.writeText(props.text);
      setSaid('Copied');
    } catch {
      setSaid('Press Ctrl-C');
    }
  };
  return (
    <div class="copyable">
      <textarea ref={field} readOnly rows={5} spellcheck={false} aria-label="Command" value={props.text} />
      <button type="button" onClick={() => void copy()}>
        {said === '' ? 'Copy' : said}
      </button>
    </div>
  );
}
