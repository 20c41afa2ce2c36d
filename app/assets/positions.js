// A position map from its regions, as app/ui/map_data.py gives them: computed here as PositionMap computes it.

function indexed(map, i) {
  if (map[0] === "r") return (i - map[2]) / map[1] + map[3];
  if (map[0] === "c") return Math.min((i % map[1]) + map[3], map[2]);
  return Math.floor(((i - map[2]) * map[0]) / map[1]) + map[3];
}

function regionOf(map, query, key) {
  for (let n = 1; n < map.length; n++) {
    const [, lower, upper, block] = map[n];
    const distance = Math.floor(query / block) - Math.floor(key / block);
    if (distance >= lower && (upper === null || distance < upper)) return map[n];
  }
  return null;
}

function positionOf(map, query, key) {
  const region = regionOf(map, query, key);
  return indexed(region[4], query) - indexed(region[5], key);
}
