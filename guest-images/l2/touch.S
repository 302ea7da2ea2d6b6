# SPDX-License-Identifier: GPL-2.0-or-later
#
# Loads a word of every page, or stores one there.
#
# in:   rdi   address of the first word
#       rsi   number of pages, at least 1
#       rdx   the word to store
#       rax   0 to load, 1 to store
# out:  rax   the last word that was loaded, or stored

        .code64
        .text
        mov     %rax, %r14
next:   test    %r14, %r14
        jnz     store
        mov     (%rdi), %rax
        jmp     done
store:  mov     %rdx, (%rdi)
        mov     %rdx, %rax
done:   add     $4096, %rdi
        dec     %rsi
        jnz     next
        hlt
