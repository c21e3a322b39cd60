import { render } from 'preact';

import { App } from './app/App';

const place = document.getElementById('app');
if (place !== null) render(<App />, place);
