//go:build race

package crashtest

// withRace: the loops are too slow under the race detector, and what they look for is not a race.
const withRace = true
