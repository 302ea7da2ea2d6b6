# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes one hypercall of KVM's (Documentation/virt/kvm/x86/hypercalls.rst), with the registers as they come in.
#
# in:   rax   the number of the hypercall
#       rbx, rcx, rdx   its arguments
# out:  rax   its result

        .code64
        .text
        vmmcall
        hlt
