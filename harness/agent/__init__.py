# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: runs in the host under test and does there what the scenarios ask for.

Standard library only, and relative imports only: in the guest the package is called `agent`, here it is
`harness.agent`. What is not needed to say hello is imported when it is first asked for, because under TCG
every module costs milliseconds of each boot.
"""

from __future__ import annotations

import time

# When the interpreter got here, which is before it imports anything else of the agent.
ENTERED = time.clock_gettime(time.CLOCK_BOOTTIME)
