// The rules of proto/README.md ("Changing a field safely", "Versions"), as far as the source of this version and of the one before
// show whether they were kept.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { numbers, previousCommit, schema } from './lib/versions.mjs';

const previous = previousCommit();
const skip = previous ? false : 'this clone does not have the commit of tests/live/previous: git fetch --unshallow --tags';

test('the schemas still mean what they meant in the previous version', { skip }, () => {
  for (const file of ['client', 'mesh', 'store']) {
    const [then, now] = [schema(file, previous), schema(file)];
    assert.ok(then.size > 10, `${file}.proto: only ${then.size} fields are found`);
    for (const [number, was] of then) {
      const is = now.get(number);
      assert.ok(is, `${file}.proto: ${number} (${was.name}) is gone and not reserved`);
      if (was.what === 'reserved' || is.what !== 'reserved') assert.equal(is.what, was.what, `${file}.proto: ${number} (${was.name})`);
      if (file === 'client' && is.what !== 'reserved') assert.equal(is.name, was.name, `${file}.proto: ${number} is the JSON key ${was.name}`);
    }
  }
});

test('the numbers of this version fit those of the previous one', { skip }, () => {
  const [then, now] = [numbers(previous), numbers()];
  assert.ok(then.kinds.length > 10);
  const [gone, added] = [then.kinds.filter((kind) => !now.kinds.includes(kind)), now.kinds.filter((kind) => !then.kinds.includes(kind))];
  assert.deepEqual(gone, [], 'a log may hold them still');
  assert.ok(added.length === 0 || now.level > then.level, `new kinds of log entries, ${added}, and STORE_GROUP_LEVEL is still ${now.level}`);
  assert.ok(now.level >= then.level && now.format >= then.format && now.link >= then.link, 'a number went down');
  assert.ok(now.link_min <= then.link, `LINK_VERSION_MIN ${now.link_min}: the previous version speaks up to ${then.link}`);
  assert.equal(now.format, then.format, 'no way is known from one STORE_FORMAT to another while a cluster runs');
});
