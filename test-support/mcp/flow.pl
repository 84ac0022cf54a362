#!/usr/bin/env perl
# The workflow server of flow.py on standard streams, for containers that have git, and therefore Perl, but no Python.
# Core modules only.
use strict;
use warnings;
use JSON::PP;

$| = 1;
my $json = JSON::PP->new->utf8->canonical;
my %state;

my %tools = (
    echo     => ["Say it again.",                              qw(text)],
    upload   => ["Upload a document.",                         qw(name content)],
    status   => ["The state of a document.",                   qw(name)],
    update   => ["Change a document's state.",                 qw(name state)],
    variable => ["An environment variable of this process.",   qw(name)],
    user     => ["The number of the user this process is of."],
);

sub call {
    my ($name, $given) = @_;
    if ($name eq "echo")   { return "echo:$given->{text}" }
    if ($name eq "upload") {
        $state{$given->{name}} = "uploaded";
        return "$given->{name} has " . length($given->{content}) . " characters";
    }
    if ($name eq "status" && $state{$given->{name}}) { return $state{$given->{name}} }
    if ($name eq "update") { $state{$given->{name}} = $given->{state}; return "done" }
    if ($name eq "variable") { return $ENV{$given->{name}} // "not set" }
    if ($name eq "user") { return "$>" }
    return undef;
}

# The result of one request.
sub result {
    my ($method, $params) = @_;
    if ($method eq "initialize") {
        return {
            protocolVersion => $params->{protocolVersion} // "2025-03-26",
            capabilities    => { tools => {} },
            serverInfo      => { name => "flow", version => "1" },
        };
    }
    if ($method eq "tools/list") {
        my @list;
        for my $name (sort keys %tools) {
            my ($about, @given) = @{ $tools{$name} };
            my %properties = map { $_ => { type => "string" } } @given;
            my $schema = { type => "object", properties => \%properties };
            push @list, { name => $name, description => $about, inputSchema => $schema };
        }
        return { tools => \@list };
    }
    if ($method eq "tools/call") {
        my $text  = call($params->{name}, $params->{arguments} // {});
        my $wrong = defined $text ? JSON::PP::false : JSON::PP::true;
        $text //= "there is no $params->{name} of that";
        return { content => [ { type => "text", text => $text } ], isError => $wrong };
    }
    return {} if $method eq "ping";
    return undef;
}

while (my $line = <STDIN>) {
    my $message = $json->decode($line);
    next unless exists $message->{id};
    my $reply = { jsonrpc => "2.0", id => $message->{id} };
    my $result = result($message->{method}, $message->{params} // {});
    if   ($result) { $reply->{result} = $result }
    else           { $reply->{error} = { code => -32601, message => "no method $message->{method}" } }
    print $json->encode($reply), "\n";
}
