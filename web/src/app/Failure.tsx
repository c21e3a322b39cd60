// Why the server gave nothing, and what can be done about it.

import type { ComponentChildren, JSX } from 'preact';

import { serverNowMs, type Problem } from './api';
import { Message } from './Message';
import { withLocalTimes } from './time';

export function Failure(props: {
  readonly problem: Problem;
  /** What there is not, `flame graph to show`. */
  readonly what: string;
  readonly onAfresh: () => void;
  /** Offered where the server has no such thing. */
  readonly children?: ComponentChildren;
}): JSX.Element {
  const { problem } = props;
  switch (problem.kind) {
    case 'offline':
      return <Message tone="alert" title="The server does not answer" text="It may be stopped or restarting, or the way to it is broken. The page asks again by itself." />;
    case 'busy':
      return <Message tone="alert" title="The server cannot answer now" text={`${problem.message}. The page asks again by itself.`} />;
    case 'unauthorized':
      return (
        <Message tone="alert" title="This server wants a token" text="Load the page again and give the token as the password; any user name will do.">
          <button type="button" class="primary" onClick={() => window.location.reload()}>
            Load again
          </button>
        </Message>
      );
    case 'missing':
      return (
        <Message tone="alert" title={`There is no ${props.what}`} text={withLocalTimes(problem.message, serverNowMs())}>
          {props.children}
        </Message>
      );
    default:
      return (
        <Message tone="alert" title={`There is no ${props.what}`} text={problem.message}>
          <button type="button" onClick={props.onAfresh}>
            Start afresh
          </button>
        </Message>
      );
  }
}
