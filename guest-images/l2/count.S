# SPDX-License-Identifier: GPL-2.0-or-later
#
# Counts in a word of memory, so that somebody who looks can see that the guest runs.
#
# in:   rdi   address of the word
#       rsi   where to end; 0 is never
# out:  rax   the word's last value

        .code64
        .text
again:  lock incq (%rdi)
        mov     (%rdi), %rax
        pause
        cmp     %rsi, %rax
        jne     again
        hlt
