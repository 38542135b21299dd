# SPDX-License-Identifier: Apache-2.0
# What prove prints, and below it each skip with its reason and one line of totals from the TAP.
package Totals;

use strict;
use warnings;
use TAP::Formatter::Console;
use TAP::Formatter::File;

# A log gets whole lines, one a test, in the order in which they end.
our @ISA = (-t STDOUT ? 'TAP::Formatter::Console' : 'TAP::Formatter::File');

my @skips;

sub open_test {
	my ($self, $test, $parser) = @_;

	$parser->callback(test => sub {
		my ($result) = @_;

		return unless $result->has_skip;
		push @skips, [$test, $result->description, $result->explanation];
	});
	return $self->SUPER::open_test($test, $parser);
}

sub summary {
	my ($self, $aggregate, $interrupted) = @_;
	my ($skipped, $unfinished) = (scalar $aggregate->skipped, 0);
	my $failed = $aggregate->failed;
	my $passed = $aggregate->passed - $skipped;

	$self->SUPER::summary($aggregate, $interrupted);
	for my $test ($aggregate->descriptions) {
		my ($parser) = $aggregate->parsers($test);

		if ($parser->skip_all) {
			push @skips, [$test, 'all of it', $parser->skip_all];
			$skipped++;
		}
		# A test that died, or ran other than it planned, failed however its lines read.
		$unfinished++ if !$parser->failed && $parser->has_problems && !$parser->todo_passed;
	}
	$failed += $unfinished;
	printf "skipped: %s: %s: %s\n", $$_[0], $$_[1] =~ s/^- //r, $$_[2] || 'no reason given'
		for @skips;
	print "$passed passed, $failed failed, $skipped skipped\n";
	return if $passed || $failed;
	print "no test ran: that is a failure\n";
	exit 1;
}

1;
