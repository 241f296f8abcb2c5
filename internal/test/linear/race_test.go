//go:build race

package linear

// withRace: the loops are too slow under the race detector, and what they look for is not a race.
const withRace = true
