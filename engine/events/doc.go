// Package events tells those who watch what happens: thresholds that are crossed, refusals, outages of the store, new
// policies.
//
// It knows neither where the events of thresholds are kept, nor what a limit is: a [Source] has them, the others are
// published by whoever knows. Nothing runs while nobody watches. Read [Hub] first.
package events
