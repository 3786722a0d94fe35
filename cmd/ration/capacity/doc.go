// Package capacity says whether what all callers share will be enough: the peak of a plan, so many users who make so
// many calls, beside the limits of upstreams, of lanes and of the whole domain.
//
// It is arithmetic over a policy, exact, in fractions of whole numbers. It must not know where counters are kept, nor how
// what it finds is printed. Read plan.go first, for what is taken for true of a day's traffic; shared.go has the bounds.
package capacity
