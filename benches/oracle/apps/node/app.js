// A service of a chain: `node --require ./spans.js app.js PORT`. It answers to /work/{id} and /work/{id}/{part} once
// ORACLE_NEXT has: asked with http.get over a pool, or with ORACLE_CLIENT=fetch; ORACLE_CALLS times, one after the
// other, or at once with ORACLE_PARALLEL=1.
'use strict'
const http = require('http')
const express = require('express')

const next = process.env.ORACLE_NEXT
const calls = Number(process.env.ORACLE_CALLS || 1)
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 })

const byHttp = (url) => new Promise((resolve, reject) => {
  const request = http.get(url, { agent }, (response) => {
    response.resume()
    response.on('end', () => response.statusCode === 200 ? resolve() : reject(new Error(`${response.statusCode}`)))
  })
  request.on('error', reject)
})
const byFetch = async (url) => {
  const response = await fetch(url)
  await response.text()
  if (response.status !== 200) throw new Error(`${response.status}`)
}
const ask = process.env.ORACLE_CLIENT === 'fetch' ? byFetch : byHttp
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

async function work(request, response) {
  const { id, part } = request.params
  const base = `${next}/work/${id}`
  const parts = Array.from({ length: calls }, (_, call) => `${base}/${call + 1}`)
  // Answers come in another order than questions.
  if (!next) await pause(Number(id) % 4)
  else if (calls === 1) await ask(part ? `${base}/${part}` : base)
  else if (process.env.ORACLE_PARALLEL === '1') await Promise.all(parts.map(ask))
  else for (const url of parts) await ask(url)
  response.type('text').send('ok\n')
}

const app = express()
app.get('/work/:id', work)
app.get('/work/:id/:part', work)
http.createServer(app).listen(Number(process.argv[2]), '127.0.0.1')
