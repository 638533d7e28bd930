"""What trials need, for processes that Ray keeps ready: it imports this module before they are trials'.

Loading so many libraries, the garbage collector looks through all of their objects again and again, and finds nothing.
It rests meanwhile, and leaves them alone afterwards.
"""

import gc
from importlib import import_module

gc.disable()
for _module in ("sweeps.engine.worker", "carcls.families.classifying", "carcls.families.retrieval"):
    import_module(_module)
gc.freeze()
gc.enable()
