package demo

import "github.com/tributary-io/tributary/tiers"

// A spot is a place of the demo on the map. Voters is how many votes a
// second its people cast on average.
type spot struct {
	place    tiers.Place
	name     string
	lat, lon float64
	zone     float64 // hours ahead of UTC
	voters   float64
}

var spots = []spot{
	{place: tiers.Root, name: "The world"},
	{place: "eu", name: "Europe"},
	{place: "us", name: "Americas"},
	{place: "ap", name: "Asia-Pacific"},
	{place: "eu.de", name: "Germany"},
	{place: "eu.fr", name: "France"},
	{place: "eu.gb", name: "United Kingdom"},
	{place: "us.us", name: "United States"},
	{place: "us.br", name: "Brazil"},
	{place: "ap.jp", name: "Japan"},
	{place: "ap.in", name: "India"},
	{place: "eu.de.berlin", name: "Berlin", lat: 52.52, lon: 13.41, zone: 1, voters: 145},
	{place: "eu.de.munich", name: "Munich", lat: 48.14, lon: 11.58, zone: 1, voters: 125},
	{place: "eu.de.hamburg", name: "Hamburg", lat: 53.55, lon: 9.99, zone: 1, voters: 115},
	{place: "eu.fr.paris", name: "Paris", lat: 48.86, lon: 2.35, zone: 1, voters: 160},
	{place: "eu.fr.lyon", name: "Lyon", lat: 45.76, lon: 4.84, zone: 1, voters: 115},
	{place: "eu.gb.london", name: "London", lat: 51.51, lon: -0.13, zone: 0, voters: 170},
	{place: "eu.gb.leeds", name: "Leeds", lat: 53.80, lon: -1.55, zone: 0, voters: 115},
	{place: "us.us.new-york", name: "New York", lat: 40.71, lon: -74.01, zone: -5, voters: 175},
	{place: "us.us.chicago", name: "Chicago", lat: 41.88, lon: -87.63, zone: -6, voters: 130},
	{place: "us.us.los-angeles", name: "Los Angeles", lat: 34.05, lon: -118.24, zone: -8, voters: 155},
	{place: "us.br.sao-paulo", name: "São Paulo", lat: -23.55, lon: -46.63, zone: -3, voters: 170},
	{place: "us.br.recife", name: "Recife", lat: -8.05, lon: -34.88, zone: -3, voters: 115},
	{place: "ap.jp.tokyo", name: "Tokyo", lat: 35.68, lon: 139.69, zone: 9, voters: 185},
	{place: "ap.jp.osaka", name: "Osaka", lat: 34.69, lon: 135.50, zone: 9, voters: 130},
	{place: "ap.in.mumbai", name: "Mumbai", lat: 19.08, lon: 72.88, zone: 5.5, voters: 175},
	{place: "ap.in.delhi", name: "Delhi", lat: 28.61, lon: 77.21, zone: 5.5, voters: 170},
}

// A candidacy is a candidate, and how popular it is.
type candidacy struct {
	name  string
	share float64
}

var candidates = []candidacy{{"amazon", 0.30}, {"danube", 0.25}, {"ganges", 0.20}, {"nile", 0.15}, {"mississippi", 0.10}}
