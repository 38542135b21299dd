#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Conversations word by word: reads commands on stdin, answers each with one line on stdout. Texts know
# \r, \n and %SIZE, which stands for so many bytes.
#   open NAME HOST:PORT|/PATH      -> open
#   send NAME TEXT                 -> sent     in one call
#   dribble NAME TEXT              -> sent     a byte a call, each a packet of its own
#   read NAME [METHOD]             -> CODE BYTES   one answer, whole; METHOD HEAD has no body
#   close NAME                     -> closed
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

$| = 1;
my (%sockets, %buffers);

sub more {
	my ($name) = @_;
	my $n = sysread($sockets{$name}, $buffers{$name}, 65536, length $buffers{$name});
	die "$name: $!\n" unless defined $n;
	return $n;
}

sub line {
	my ($name) = @_;
	my $end;
	more($name) or die "$name: it ended in a line\n" while ($end = index $buffers{$name}, "\r\n") < 0;
	return substr substr($buffers{$name}, 0, $end + 2, ''), 0, $end;
}

sub take {
	my ($name, $n) = @_;
	my $left = $n;
	while ($left > length $buffers{$name}) {
		$left -= length $buffers{$name};
		$buffers{$name} = '';
		more($name) or die "$name: it ended in a body\n";
	}
	substr($buffers{$name}, 0, $left) = '';
	return $n;
}

sub answer {
	my ($name, $method) = @_;
	my ($code) = line($name) =~ m{^HTTP/1\.[01] (\d+)} or die "$name: no status line\n";
	my ($length, $chunked, $bytes) = (undef, 0, 0);
	while ((my $header = line($name)) ne '') {
		$length = $1 if $header =~ /^content-length: *(\d+)/i;
		$chunked = 1 if $header =~ /^transfer-encoding: *chunked/i;
	}
	return "$code 0" if $method eq 'HEAD' || $code < 200 || $code == 204 || $code == 304;
	if ($chunked) {
		while ((my $size = hex line($name))) {
			$bytes += take($name, $size);
			line($name);
		}
		line($name);
	} elsif (defined $length) {
		$bytes = take($name, $length);
	} else {
		1 while more($name);
		$bytes = length $buffers{$name};
		$buffers{$name} = '';
	}
	return "$code $bytes";
}

sub text {
	my ($t) = @_;
	$t =~ s/\\r/\r/g;
	$t =~ s/\\n/\n/g;
	$t =~ s/%(\d+)/'x' x $1/ge;
	return $t;
}

sub put {
	my ($name, $t) = @_;
	my $at = 0;
	while ($at < length $t) {
		my $n = syswrite($sockets{$name}, $t, length($t) - $at, $at) or die "$name: $!\n";
		$at += $n;
	}
	return 'sent';
}

sub command {
	my ($verb, $name, $rest) = @_;
	if ($verb eq 'open') {
		my $s = $rest =~ m{^/}
			? IO::Socket::UNIX->new(Peer => $rest)
			: IO::Socket::INET->new(PeerAddr => $rest);
		$s or die "$rest: $!\n";
		setsockopt($s, IPPROTO_TCP, TCP_NODELAY, 1) unless $rest =~ m{^/};
		($sockets{$name}, $buffers{$name}) = ($s, '');
		return 'open';
	}
	$sockets{$name} or die "$name is not open\n";
	return put($name, text($rest)) if $verb eq 'send';
	return (map { put($name, $_) } split //, text($rest))[-1] if $verb eq 'dribble';
	return answer($name, $rest) if $verb eq 'read';
	delete $sockets{$name};
	return 'closed';
}

$SIG{PIPE} = 'IGNORE';
while (my $input = <STDIN>) {
	chomp $input;
	my ($verb, $name, $rest) = split / /, $input, 3;
	local $SIG{ALRM} = sub { die "nobody answers\n" };
	alarm 20;
	my $said = eval { command($verb, $name, $rest // '') } // "failed: $@";
	alarm 0;
	$said =~ s/\n//g;
	print "$said\n";
}
