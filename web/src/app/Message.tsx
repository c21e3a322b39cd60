import type { ComponentChildren, JSX } from 'preact';

import flame from './flame.svg';

/** In place of a graph: what is the matter, and what can be done. */
export function Message(props: {
  readonly title: string;
  readonly text?: string;
  readonly tone?: 'busy' | 'calm' | 'alert';
  readonly children?: ComponentChildren;
}): JSX.Element {
  const tone = props.tone ?? 'calm';
  return (
    <div class="message" role={tone === 'alert' ? 'alert' : 'status'}>
      <img src={flame} width="48" height="48" alt="" class={tone === 'busy' ? 'busy' : tone === 'alert' ? 'out' : ''} />
      <h1>{props.title}</h1>
      {props.text !== undefined && props.text !== '' && <p>{props.text}</p>}
      {props.children !== undefined && <div class="row">{props.children}</div>}
    </div>
  );
}
