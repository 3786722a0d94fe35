// Package subject is who pays: the directory of subjects, with the tier, the time zone, the exceptions and the API keys
// of each, and a read cache over it.
//
// It knows instants and amounts (package limit), and nothing of policies, transports or where counters are kept: what
// a tier allows, and what a limit's path stands for, is the policy's to say. Directories: subject/memory and
// subject/redis; subject/subjecttest is the suite that any must pass.
//
// Read [Subject] first, then [Directory], whose comments state every obligation, then [Cache], by which decisions ask.
package subject
