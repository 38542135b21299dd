/* SPDX-License-Identifier: Apache-2.0 */
/* Verbs of the binary: one file a verb. argv[0] is the verb. Each returns an enum exit_code and
 * has printed its own one-line error on stderr ("tidegate VERB: what, which, why, what to do"). */
#pragma once

int agent_verb(int argc, char **argv);
int aggregator_verb(int argc, char **argv);
int doctor_verb(int argc, char **argv);
int metrics_verb(int argc, char **argv);
int tail_verb(int argc, char **argv);
int drain_verb(int argc, char **argv);
int undrain_verb(int argc, char **argv);
int hooks_verb(int argc, char **argv);
int config_verb(int argc, char **argv);
int version_verb(int argc, char **argv);
