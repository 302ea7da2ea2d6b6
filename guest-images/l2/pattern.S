# SPDX-License-Identifier: GPL-2.0-or-later
#
# Writes the pattern of harness/agent/pattern.py into pages, or checks that they hold it.
#
# in:   rdi   address of the first page
#       rsi   number of pages, at least 1
#       rdx   number of the first page in the pattern
#       rcx   seed
#       rax   0 to write, 1 to check
# out:  rax   0: done; 1: a word differs, and then
#       rdx   the page's number in the pattern
#       rbx   the word's number in the page
#       r8    the word that is expected
#       r9    the word that is found

        .code64
        .text
        movabs  $0xd1342543de82ef95, %r10
        imul    %r10, %rcx
        movabs  $0x6c7568206c326d31, %r10
        add     %r10, %rcx                      # what all pages of the seed have in common
        movabs  $0xa24baed4963ee407, %r13       # the step from word to word
        mov     %rax, %r14

page:   movabs  $0x9e3779b97f4a7c15, %r11
        imul    %rdx, %r11
        add     %rcx, %r11
        mov     %r11, %r10                      # splitmix64's finaliser
        shr     $30, %r10
        xor     %r10, %r11
        movabs  $0xbf58476d1ce4e5b9, %r10
        imul    %r10, %r11
        mov     %r11, %r10
        shr     $27, %r10
        xor     %r10, %r11
        movabs  $0x94d049bb133111eb, %r10
        imul    %r10, %r11
        mov     %r11, %r10
        shr     $31, %r10
        xor     %r10, %r11                      # the page's own 64 bits

        xor     %r12d, %r12d
        xor     %ebx, %ebx
        test    %r14, %r14
        jnz     check

write:  mov     %r12, %r8
        xor     %r11, %r8
        mov     %r8, (%rdi,%rbx,8)
        add     %r13, %r12
        inc     %ebx
        cmp     $512, %ebx
        jne     write
        jmp     next

check:  mov     %r12, %r8
        xor     %r11, %r8
        mov     (%rdi,%rbx,8), %r9
        cmp     %r8, %r9
        jne     differs
        add     %r13, %r12
        inc     %ebx
        cmp     $512, %ebx
        jne     check

next:   add     $4096, %rdi
        inc     %rdx
        dec     %rsi
        jnz     page
        xor     %eax, %eax
        hlt

differs:
        mov     $1, %eax
        hlt
