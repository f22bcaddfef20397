import collections
from tests.e2e import test_state_machine as m
C = collections.Counter()
orig = m.Life.act
def act(self, work, bomb=None):
    a = orig(self, work, bomb)
    name = getattr(work,'__qualname__','')
    C[(name, str(bomb), getattr(a,'status_code',None), a.json().get('code') if a is not None and hasattr(a,'json') else None)] += 1
    return a
m.Life.act=act
orig_td = m.Life.teardown
def td(self):
    C['examples']+=1; C['tasks']+=len(self.tasks); C['grants']+=len(self.grants); C['undelivered']+=sum(1 for g in self.grants if not g.credential)
    orig_td(self)
    if C['examples']==15:
        for k,v in C.items(): print(k,v)
m.Life.teardown=td
from tests.e2e.test_state_machine import *
from tests.conftest import *
