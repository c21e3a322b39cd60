// A web server on one event loop that goes on with a request in every way in which such a one can, and does things
// for nobody besides: node server.js [PORT-OF-ANOTHER]. It says `ready PID MONOTONIC_NS`
// and `listening PORT`.
//
//   /sync/ID       asks the other server for /down/ID right away
//   /timer/ID      … a few milliseconds later
//   /immediate/ID  … in the next phase of the loop
//   /promise/ID    … behind a promise
//   /pool/ID       … when a thread of the pool is done
//   /down/ID       answers at once, as all do if there is no other server
//
// Whoever has another server also works for 2 ms every 5 ms, in burnForNobody, and asks for /down/nobody then.
'use strict';
const http = require('node:http');
const crypto = require('node:crypto');
const other = Number(process.argv[2] || 0);
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });

function ask(path, done) {
  const request = http.get({ host: '127.0.0.1', port: other, path, agent }, (response) => {
    response.resume();
    response.on('end', done);
  });
  request.on('error', done);
}

const server = http.createServer((request, response) => {
  const [, kind, id] = request.url.split('/');
  const answer = () => response.writeHead(200, { 'Content-Length': 3 }).end('ok\n');
  const goOn = () => ask(`/down/${id}`, answer);
  switch (other ? kind : 'down') {
    case 'sync': goOn(); break;
    case 'timer': setTimeout(goOn, Number(id) % 5); break;
    case 'immediate': setImmediate(goOn); break;
    case 'promise': Promise.resolve().then(goOn); break;
    case 'pool': crypto.pbkdf2('a', 'b', 2000, 32, 'sha1', goOn); break;
    default: answer();
  }
});
server.listen(0, '127.0.0.1', () => {
  console.log(`ready ${process.pid} ${process.hrtime.bigint()}`);
  console.log(`listening ${server.address().port}`);
});

function burnForNobody() {
  const end = process.hrtime.bigint() + 2000000n;
  while (process.hrtime.bigint() < end);
}

if (other) {
  setInterval(() => {
    burnForNobody();
    ask('/down/nobody', () => {});
  }, 5);
}
