# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function a report is about: its lines that name functions, and which of these are helpers. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

SYMBOL = r"[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+"

# A stack's line; a question mark is before what the unwinder does not vouch for.
_FRAME = re.compile(rf"^(?:kmemleak:)?\s*({SYMBOL})(?:\s|$)")
_GUESS = re.compile(rf"^\s*\? ({SYMBOL})(?:\s|$)")
_RIP = re.compile(rf"^RIP: 0010:({SYMBOL})")
_AT = re.compile(rf"\bat: ({SYMBOL})")
_IN_FLIGHT = re.compile(r"in-flight: \d+\w*:([A-Za-z_]\w*)")
_SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")

# What is on the way from the mistake to its report, and helpers that everybody calls.
_HELPERS = r"""
(?:__)?dump_stack\w* (?:v)?panic\w* __?die\w* die oops_\w+ crash_\w+ show_\w+ (?:__)?warn\w*
report_bug\w* handle_bug fixup_\w+ asm_\w+ exc_\w+ do_error_trap page_fault\w* sysvec_\w+
__sysvec_\w+ common_interrupt irqentry\w* irq_work\w* handle_stack_overflow bad_area\w*
do_(?:user|kern)_addr_fault kernelmode_fixup\w* search_extable print_\w+
check_(?:memory_region|noncircular|wait_context|usage\w*|prev\w*|flush_\w+) mark_\w+
validate_chain register_lock_class (?:__)?lock_\w+ (?:__)?lockdep\w* debug_check\w* valid_state
(?:__)?_raw_\w+ do_raw_\w+ (?:native_)?queued_\w+ (?:__)?spin_\w+ (?:__)?debug_spin\w*
(?:__)?mutex_\w+ (?:__)?ww_mutex\w* (?:__)?down\w* (?:__)?up_(?:read|write) rwsem_\w+
rt_mutex\w* _+might_\w+ might_\w+ (?:__)?rcu_\w+ (?:__)?schedule\w* io_schedule\w*
preempt_schedule\w* (?:__)?cond_resched\w* context_switch (?:__)?wait_(?:for|on)_\w+
(?:__)?wait_event\w* do_wait_\w+ msleep\w* usleep\w* bit_wait\w* (?:__)?kasan_\w+ __asan_\w+
(?:__)?kfence_\w+ (?:__)?ubsan_\w+ handle_overflow (?:__)?kmemleak\w* end_report start_report
complete_report\w* object_err slab_\w+ free_\w*slab\w* (?:__)?slab_\w+
(?:__)?k[mzc]?[mc]?alloc\w* (?:__)?kfree\w* (?:__)?kmem_cache_\w+ (?:__)?kv?m?alloc\w*
kv?free\w* (?:__)?vmalloc\w* vfree\w* (?:__)?alloc_pages\w* (?:__)?get_free_pages\w*
___slab_alloc (?:__)?mem(?:cpy|set|move|cmp|chr)\w* (?:__)?str(?:cpy|len|cmp|scpy|lcpy|ncpy)\w*
sized_strscpy (?:_)?copy_(?:to|from)_\w+
(?:__)?check_(?:object_size|heap_object|page_span|copy_size|stack_object)\w* usercopy_abort
(?:__)?fortify_\w+ (?:__)?refcount_\w+ (?:__)?list_(?:add|del)\w* (?:__)?delay\w* delay_\w+
(?:__)?const_udelay (?:__)?udelay native_\w+ cpu_relax watchdog\w* (?:__)?hrtimer\w*
(?:__)?run_\w*timer\w* tick_\w+ update_process_times nmi_\w+ default_do_nmi end_repeat_nmi
perf_\w+ arch_trigger\w* sched_tick scheduler_tick call_timer_fn smp_call_function\w* csd_\w+
__stack_chk_fail debug_object\w* get_\w*stack_info __pfx_\w+ trace_hardirqs\w* trace_irq\w*
"""
_HELPER = re.compile("|".join(_HELPERS.split()))

Look = Callable[[re.Match[str], Sequence[str]], list[str]]


def plain(function: str) -> str:
    """A function's name as the source has it: without offset and the compiler's suffixes."""
    return _SUFFIX.sub("", function.partition("+")[0])


def culprit(looks: Sequence[str], match: re.Match[str], report: Sequence[str]) -> str:
    """The function with its offset that is named first and is no helper; a helper where all are.

    looks: where to look, in this order: "line" (group `function` of the first line's match), "at" (of a
    lock), "rip", "trace", "work" (in flight). report: its lines without time and caller.
    """
    candidates = [found for look in looks for found in _LOOKS[look](match, report)]
    telling = (one for one in candidates if not _HELPER.fullmatch(plain(one)))
    return next(telling, candidates[0] if candidates else "")


def _in_line(match: re.Match[str], report: Sequence[str]) -> list[str]:
    return [match["function"]] if "function" in match.groupdict() else []


def _first(pattern: re.Pattern[str]) -> Look:
    def look(match: re.Match[str], report: Sequence[str]) -> list[str]:
        return [found[1] for line in report if (found := pattern.search(line))][:1]

    return look


def _trace(match: re.Match[str], report: Sequence[str]) -> list[str]:
    """The frames of all stacks, and behind them the unwinder's guesses."""
    return [found[1] for kind in (_FRAME, _GUESS) for line in report if (found := kind.match(line))]


_LOOKS: dict[str, Look] = {
    "line": _in_line,
    "at": _first(_AT),
    "rip": _first(_RIP),
    "trace": _trace,
    "work": _first(_IN_FLIGHT),
}
