# SPDX-License-Identifier: GPL-2.0-or-later
#
# Stores to page after page, and after each the number of pages that are done in a word elsewhere: whatever
# the word says was done before it said so (stores are not reordered with stores).
#
# in:   rdi   address of the first page
#       rsi   number of pages, at least 1
#       rdx   address of the word that counts
#       rcx   how long to wait after each page
#       rax   what to store in the first page; one more in each that follows
# out:  rax   what would have come next

        .code64
        .text
        xor     %ebx, %ebx
next:   mov     %rax, (%rdi)
        inc     %rax
        inc     %rbx
        mov     %rbx, (%rdx)
        mov     %rcx, %r8
idle:   pause
        dec     %r8
        jns     idle
        add     $4096, %rdi
        dec     %rsi
        jnz     next
        hlt
