//go:build !race

package crashtest

const withRace = false
