//go:build race

package keeper_test

// withRace: the loops are too slow under the race detector, and they look for no races.
const withRace = true
