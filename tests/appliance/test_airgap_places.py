"""What CUDA needs of the file rules, on a machine that may have no GPU."""

from __future__ import annotations

import errno

import pytest
from airgap_support import in_child

from appliance.security.airgap.jail import holds_files

NAMES = """
import subprocess
from pathlib import Path
from appliance.security.airgap import places
places._CUDA = Path({gpu!r})
enter(NONE, keep=(), writes=places.everywhere())
go = threading.Event()
other = threading.Thread(target=go.wait)
other.start()
def name(thread):
    with open(f"/proc/{{os.getpid()}}/task/{{thread}}/comm", "r+") as stream:
        stream.write("worker")
child = "import os; open(f'/proc/{{os.getpid()}}/task/{{os.getpid()}}/comm', 'r+').write('child')"
done = subprocess.run([sys.executable, "-c", child], capture_output=True)
found = number(name, other.native_id)
go.set()
tell(thread=found, child=done.returncode, elsewhere=number(open, "/tmp/planted", "w"))
"""


@pytest.mark.skipif(not holds_files(), reason="this kernel's Landlock has no rules for files")
@pytest.mark.parametrize("gpu", ["/dev/null", "/dev/there-is-none"])
def test_threads_can_be_named_where_there_is_a_gpu(gpu: str) -> None:
    found = in_child(NAMES.format(gpu=gpu))
    shut = gpu != "/dev/null"
    assert found == {"thread": errno.EACCES if shut else 0, "child": int(shut), "elsewhere": errno.EACCES}
