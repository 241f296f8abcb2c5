//go:build race

package realdisk

const withRace = true
