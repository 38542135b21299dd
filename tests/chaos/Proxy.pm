# SPDX-License-Identifier: Apache-2.0
# What lies between couriers and a door: forwards SP messages whole and does to them what networks do,
# per agent. One process, one loop, told what to do by lines on a pipe:
#   set AGENT KEY VALUE   delay MS: each message waits a random time up to it, in order; reorder MS: the
#                         same, not in order; double P, drop P: so many of 100 messages; hang 1: nothing
#                         is read any more and no connection ends; deaf 1: connections are refused
#   cut AGENT             resets its connections, in the middle of a message where one is on its way
#   replay                sends every frame that was ever acknowledged again -> "replayed" below
#   stats                 -> one line, "key=value ..."
#   quit
# And it is the witness: which frames (agent, incarnation, sequence) it saw acknowledged, byte by byte.
package Proxy;

use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY MSG_NOSIGNAL);
use Time::HiRes qw(time);

my %stats = map { $_ => 0 } qw(connections cuts requests replies delayed doubled swallowed acknowledged
	partial reused session_twice foreign);
my (@modes, @listeners, %conns, %hellos, %witness);
my $next_conn = 0;

# ---- protobuf, as far as it is needed ----

sub varint {
	my ($bytes, $at) = @_;
	my ($value, $shift) = (0, 0);
	while ($$at < length $$bytes) {
		my $b = ord substr $$bytes, $$at++, 1;
		$value |= ($b & 127) << $shift;
		return $value if $b < 128;
		$shift += 7;
	}
	return $value;
}

sub fields { # [number, value]...
	my ($bytes) = @_;
	my ($at, @out) = (0);
	while ($at < length $bytes) {
		my $tag = varint(\$bytes, \$at);
		my $type = $tag & 7;
		if ($type == 0) {
			push @out, [$tag >> 3, varint(\$bytes, \$at)];
		} elsif ($type == 2) {
			my $n = varint(\$bytes, \$at);
			push @out, [$tag >> 3, substr $bytes, $at, $n];
			$at += $n;
		} else {
			last;
		}
	}
	return @out;
}

sub put_varint {
	my ($n) = @_;
	my $out = '';
	while ($n > 127) {
		$out .= chr($n & 127 | 128);
		$n >>= 7;
	}
	return $out . chr $n;
}
sub put_bytes { return chr($_[0] << 3 | 2) . put_varint(length $_[1]) . $_[1] }

# ---- the witness ----

sub see_request {
	my ($conn, $message) = @_;
	my %request = (frames => []);
	return if length $message < 4;
	for my $f (fields(substr $message, 4)) {
		$request{session} = $$f[1] if $$f[0] == 1;
		$request{hello} = $$f[1] if $$f[0] == 2;
		push @{$request{frames}}, $$f[1] if $$f[0] == 3;
	}
	$stats{requests}++;
	$conn->{waiting}{substr $message, 0, 4} = \%request;
}

sub acknowledged {
	my ($hello, $sequence, $frame) = @_;
	my $before = \$witness{$hello}{$sequence};
	if (!defined $$before) {
		$$before = $frame;
		$stats{acknowledged}++;
	} elsif ($$before ne $frame) {
		$stats{reused}++;
	}
}

sub see_reply {
	my ($conn, $message) = @_;
	my ($session, @sequences) = (0);
	return if length $message < 4;
	my $request = delete $conn->{waiting}{substr $message, 0, 4} or return;
	for my $f (fields(substr $message, 4)) {
		$session = $$f[1] if $$f[0] == 2;
		next unless $$f[0] == 3;
		my $at = 0;
		push @sequences, varint(\$$f[1], \$at) while $at < length $$f[1];
	}
	$stats{replies}++;
	if (defined $request->{hello} && $session) {
		$stats{session_twice}++ if ($hellos{$session} // $request->{hello}) ne $request->{hello};
		$hellos{$session} = $request->{hello};
	}
	return unless @sequences;
	my $hello = $request->{hello} // $hellos{$request->{session} // 0};
	if (!defined $hello) {
		$stats{foreign}++;
	} elsif (@sequences == @{$request->{frames}}) {
		acknowledged($hello, $sequences[$_], $request->{frames}[$_]) for 0 .. $#sequences;
	} else { # which is which is not said
		$stats{partial}++;
	}
}

# ---- connections ----

sub open_conn {
	my ($listener, $agent, $door) = @_;
	my $c = $listener->accept or return;
	if ($modes[$agent]{deaf}) {
		close $c;
		return;
	}
	my $s = IO::Socket::INET->new(PeerAddr => $door, Proto => 'tcp', Timeout => 1);
	if (!$s) { # as if nobody listened
		reset_socket($c);
		return;
	}
	for ($c, $s) {
		setsockopt $_, IPPROTO_TCP, TCP_NODELAY, 1;
		$_->blocking(0);
	}
	$stats{connections}++;
	$conns{$next_conn++} = {
		agent => $agent, sock => [$c, $s], in => ['', ''], out => ['', ''], hello => [0, 0],
		queue => [], open => [1, 1], last => [0, 0], waiting => {},
	};
}

sub reset_socket {
	my ($sock) = @_;
	setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
	close $sock;
}

sub cut {
	my ($key) = @_;
	my $conn = delete $conns{$key};
	for my $side (0, 1) { # half of what is on its way goes out
		my ($item) = grep { $$_[1] == $side } @{$conn->{queue}};
		my $rest = $conn->{out}[$side] . ($item ? $$item[2] : '');
		my $half = int(length($rest) / 2);
		send $conn->{sock}[$side], substr($rest, 0, $half), MSG_NOSIGNAL if $half;
		reset_socket($conn->{sock}[$side]);
	}
	$stats{cuts}++;
}

# To: 1 the door, 0 the agent.
sub forward {
	my ($conn, $to, $bytes, $now) = @_;
	my $mode = $modes[$conn->{agent}];
	my $at = $now;
	if ($mode->{drop} && rand 100 < $mode->{drop}) {
		$stats{swallowed}++;
		return;
	}
	if ($mode->{reorder}) {
		$at += rand($mode->{reorder}) / 1000;
		$stats{delayed}++;
	} elsif ($mode->{delay}) {
		$at += rand($mode->{delay}) / 1000;
		$stats{delayed}++;
	}
	if (!$mode->{reorder}) {
		$at = $conn->{last}[$to] if $at < $conn->{last}[$to];
		$conn->{last}[$to] = $at;
	}
	push @{$conn->{queue}}, [$at, $to, $bytes];
	if ($mode->{double} && rand 100 < $mode->{double}) {
		push @{$conn->{queue}}, [$at + rand 0.3, $to, $bytes];
		$stats{doubled}++;
	}
}

sub take {
	my ($conn, $from, $now) = @_;
	my $to = 1 - $from;
	my $in = \$conn->{in}[$from];
	if (!$conn->{hello}[$from]) {
		return if length $$in < 8;
		$conn->{hello}[$from] = 1;
		push @{$conn->{queue}}, [$now, $to, substr $$in, 0, 8, ''];
		$conn->{last}[$to] = $now;
	}
	while (length $$in >= 8) {
		my $size = unpack 'Q>', $$in;
		last if length $$in < 8 + $size;
		my $message = substr $$in, 0, 8 + $size, '';
		my $payload = substr $message, 8;
		$to ? see_request($conn, $payload) : see_reply($conn, $payload);
		forward($conn, $to, $message, $now);
	}
}

sub on_readable {
	my ($key, $from, $now) = @_;
	my $conn = $conns{$key};
	my $n = sysread $conn->{sock}[$from], $conn->{in}[$from], 1 << 18, length $conn->{in}[$from];
	return if !defined $n && $!{EAGAIN};
	if (!$n) {
		$conn->{open}[$from] = 0;
		return;
	}
	take($conn, $from, $now);
}

# Sends what is due; true while the connection is worth keeping.
sub pump {
	my ($conn, $now) = @_;
	my @later;
	for my $item (sort { $$a[0] <=> $$b[0] } @{$conn->{queue}}) {
		if ($$item[0] > $now) {
			push @later, $item;
		} else {
			$conn->{out}[$$item[1]] .= $$item[2];
		}
	}
	$conn->{queue} = \@later;
	for my $to (0, 1) {
		next unless length $conn->{out}[$to];
		my $n = send $conn->{sock}[$to], $conn->{out}[$to], MSG_NOSIGNAL;
		if (defined $n) {
			substr($conn->{out}[$to], 0, $n) = '';
		} elsif (!$!{EAGAIN}) {
			return 0;
		}
	}
	# One side has gone: the other still gets what was under way to it.
	for my $from (0, 1) {
		my $to = 1 - $from;
		next if $conn->{open}[$from];
		return 0 unless length $conn->{out}[$to] || grep { $$_[1] == $to } @later;
	}
	return 1;
}

# ---- replay: everything acknowledged once more ----

sub read_exactly {
	my ($sock, $n) = @_;
	my $bytes = '';
	while (length $bytes < $n) {
		my $got = sysread $sock, $bytes, $n - length $bytes, length $bytes;
		return unless $got;
	}
	return $bytes;
}

sub ask {
	my ($sock, $id, $payload) = @_;
	my $message = pack('N', $id | 1 << 31) . $payload;
	print {$sock} pack('Q>', length $message) . $message;
	$sock->flush;
	my $size = read_exactly($sock, 8) // return;
	my $reply = read_exactly($sock, unpack 'Q>', $size) // return;
	return substr $reply, 4;
}

sub replay {
	my ($door) = @_;
	my %sum = (frames => 0, acknowledged => 0, missing => 0, refused => 0, unanswered => 0);
	my $id = 0;
	local $SIG{ALRM} = sub { die "no answer\n" };
	for my $hello (sort keys %witness) {
		my @frames = map { $witness{$hello}{$_} } sort { $a <=> $b } keys %{$witness{$hello}};
		my $sock = IO::Socket::INET->new(PeerAddr => $door, Proto => 'tcp', Timeout => 5);
		$sum{frames} += @frames;
		if (!$sock) {
			$sum{unanswered} += @frames;
			next;
		}
		alarm 60;
		eval {
			print {$sock} "\0SP\0\0\x30\0\0";
			$sock->flush;
			read_exactly($sock, 8);
			while (my @part = splice @frames, 0, 100) {
				my $reply = ask($sock, $id++, put_bytes(2, $hello) . join '', map { put_bytes(3, $_) } @part);
				if (!defined $reply) {
					$sum{unanswered} += @part;
					next;
				}
				for my $f (fields($reply)) {
					my $kind = (undef, undef, undef, qw(acknowledged missing refused))[$$f[0]] // next;
					my $at = 0;
					while ($at < length $$f[1]) {
						varint(\$$f[1], \$at);
						$sum{$kind}++;
					}
				}
			}
		};
		alarm 0;
		$sum{unanswered} += @frames if $@;
	}
	return \%sum;
}

# ---- the loop ----

sub line_of { my ($h) = @_; return join ' ', map { "$_=$h->{$_}" } sort keys %$h }

sub command {
	my ($line, $out, $door) = @_;
	my ($verb, $agent, $key, $value) = split ' ', $line;
	if ($verb eq 'set') {
		$modes[$agent]{$key} = $value;
	} elsif ($verb eq 'cut') {
		cut($_) for grep { $conns{$_}{agent} == $agent } keys %conns;
	} elsif ($verb eq 'stats') {
		syswrite $out, line_of({%stats, incarnations => scalar keys %witness}) . "\n";
	} elsif ($verb eq 'replay') {
		syswrite $out, line_of(replay($door)) . "\n";
	} elsif ($verb eq 'quit') {
		exit 0;
	}
}

# run(IN, OUT, DOOR, SEED, PORT...): a port an agent.
sub run {
	my ($in, $out, $door, $seed, @ports) = @_;
	my $commands = '';
	srand $seed;
	$SIG{PIPE} = 'IGNORE';
	for my $port (@ports) {
		push @modes, {};
		push @listeners, IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port,
			Proto => 'tcp', Listen => 64, ReuseAddr => 1) // die "port $port: $!\n";
	}
	while (1) {
		my ($r, $w) = ('', '');
		my ($now, $next) = (time, 0.5);
		vec($r, fileno $in, 1) = 1;
		vec($r, fileno $_, 1) = 1 for @listeners;
		for my $conn (values %conns) {
			next if $modes[$conn->{agent}]{hang};
			for (0, 1) {
				vec($r, fileno $conn->{sock}[$_], 1) = 1 if $conn->{open}[$_];
				vec($w, fileno $conn->{sock}[$_], 1) = 1 if length $conn->{out}[$_];
			}
			for (@{$conn->{queue}}) {
				$next = $$_[0] - $now if $$_[0] - $now < $next;
			}
		}
		select $r, $w, undef, $next < 0 ? 0 : $next;
		$now = time;
		if (vec $r, fileno $in, 1) {
			sysread $in, $commands, 4096, length $commands or exit 0;
			command($1, $out, $door) while $commands =~ s/^(.*)\n//;
		}
		for my $i (0 .. $#listeners) {
			open_conn($listeners[$i], $i, $door) if vec $r, fileno $listeners[$i], 1;
		}
		for my $key (keys %conns) {
			my $conn = $conns{$key};
			next if $modes[$conn->{agent}]{hang};
			for (0, 1) {
				my $fd = fileno $conn->{sock}[$_];
				on_readable($key, $_, $now) if $conn->{open}[$_] && vec $r, $fd, 1;
			}
			next if pump($conn, $now);
			close $_ for @{$conn->{sock}};
			delete $conns{$key};
		}
	}
}

1;
