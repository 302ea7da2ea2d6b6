#!/usr/bin/env perl
# SPDX-License-Identifier: GPL-2.0-or-later
# Complains of trailing spaces only, in the words of the real one (--terse --show-types).
use strict;
my ($patch) = grep { !/^--/ } @ARGV;
my $status = 0;
open(my $in, '<', $patch) or die "$patch: $!";
while (my $line = <$in>) {
	next unless $line =~ /^\+.*[ \t]$/;
	print "$patch:$.: ERROR:TRAILING_WHITESPACE: trailing whitespace\n";
	$status = 1;
}
exit $status;
