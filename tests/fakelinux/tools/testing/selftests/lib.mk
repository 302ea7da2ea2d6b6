# SPDX-License-Identifier: GPL-2.0-or-later
# The part of the kernel's own lib.mk that its folders of tests rely on.
TEST_GEN_PROGS := $(addprefix $(OUTPUT)/,$(TEST_GEN_PROGS))
CFLAGS += $(KHDR_INCLUDES) -I$(realpath $(dir $(filter %/lib.mk,$(MAKEFILE_LIST))))
LDFLAGS += $(USERLDFLAGS)
