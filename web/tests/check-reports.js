// Reads the reports of `spanflame check` as those do for whom they are written: `node tests/check-reports.js FOLDER…`, each with
// check.json, check.sarif and check.xml of one comparison. The first is valid by docs/check.schema.json, the second by the
// schema of OASIS, which Microsoft's package brings along; the third is read by a parser of JUnit files, has as many
// failures and errors as it says, and the lines fail that regressed, at the place that the first says. A schema that takes everything would show
// nothing, so each must refuse a report with a wrong key.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { parse } from 'junit2json';

const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const ajv = addFormats(new Ajv2020({ strict: false, allErrors: true }));
const schema = (path) => ajv.compile(json(new URL(path, import.meta.url)));
const validReport = schema('../../docs/check.schema.json');
const validSarif = schema('../node_modules/@microsoft/sarif-multitool-ts/assets/sarif-2.1.0.schema.json');

const failures = [];
const expect = (holds, what) => {
  if (!holds) failures.push(what);
};

for (const folder of process.argv.slice(2)) {
  const at = (name) => join(folder, name);
  const said = (validate) => `${folder}: ${JSON.stringify(validate.errors?.slice(0, 5), null, 2)}`;

  const report = json(at('check.json'));
  expect(validReport(report), said(validReport));
  expect(!validReport({ ...report, verdict: 'slower' }), 'the schema of reports takes any verdict');

  const sarif = json(at('check.sarif'));
  expect(validSarif(sarif), said(validSarif));
  expect(!validSarif({ ...sarif, verdict: 'slower' }), 'the schema of SARIF takes any key');
  const regressed = report.lines.filter((line) => line.verdict === 'regressed');
  const { results } = sarif.runs[0];
  expect(results.length === regressed.length, `${folder}: a result for each line that regressed`);
  regressed.forEach((line, index) => {
    const [{ logicalLocations, physicalLocation }] = results[index].locations;
    const about = `${folder}: ${JSON.stringify(line.name)}`;
    expect(logicalLocations[0].name.includes(line.name || 'the whole'), `${about} is not ${logicalLocations[0].name}`);
    // What is below the project is found there; what is not has no place.
    const path = line.file?.startsWith('src/') ? line.file.split('/').map(encodeURIComponent).join('/') : undefined;
    expect(physicalLocation?.artifactLocation.uri === path, `${about}: ${physicalLocation?.artifactLocation.uri}`);
    expect(physicalLocation === undefined || physicalLocation.region.startLine === line.line, `${about}: its line`);
  });

  const junit = await parse(readFileSync(at('check.xml'), 'utf8'));
  const suites = junit.testsuite;
  const cases = suites.flatMap((suite) => suite.testcase ?? []);
  const count = (kind) => cases.filter((one) => one[kind] !== undefined).length;
  expect(cases.length === report.lines.length + 1, `${folder}: a case for each line, and one for the whole`);
  expect(junit.tests === cases.length, `${folder}: ${junit.tests} tests are ${cases.length}`);
  expect(junit.failures === count('failure'), `${folder}: ${junit.failures} failures are ${count('failure')}`);
  expect(junit.errors === count('error'), `${folder}: ${junit.errors} errors are ${count('error')}`);
  expect(suites[0].skipped === count('skipped'), `${folder}: ${suites[0].skipped} skipped are ${count('skipped')}`);
  const whole = report.verdict === 'regressed' ? 1 : 0;
  const failing = whole === 1 ? regressed.filter((line) => line.allowed === null).length : 0;
  expect(count('failure') === failing + whole, `${folder}: ${failing} lines fail, but ${count('failure')} cases`);
  const levels = { total: 'total', module: 'module', function_self: 'function', function_inclusive: 'function with callees' };
  for (const [level, kind] of Object.entries(levels)) {
    const failed = cases.filter((one) => one.failure !== undefined && one.classname === `check.${kind}`);
    const lines = regressed.filter((line) => whole === 1 && line.allowed === null && line.level === level);
    expect(failed.length === lines.length, `${folder}: ${lines.length} of ${kind} fail, but ${failed.length} cases`);
    // Of other names something is left out that XML has no place for.
    for (const { name } of lines.filter((line) => /^[\w ]+$/.test(line.name))) {
      expect(failed.some((one) => one.name.includes(name)), `${folder}: no case of ${name} fails`);
    }
  }
  expect(count('error') === (report.verdict === 'inconclusive' ? 1 : 0), `${folder}: undecided is an error`);
}
expect(process.argv.length > 2, 'no folder was given');

if (failures.length > 0) {
  console.error(failures.join('\n'));
  process.exitCode = 1;
}
