"""Fingerprints that two people compare over the telephone: eight words, and the hex beside them.

The fingerprint of a key is SHA-256(`cloister/b1/words` || 0x00 || key); each word stands for 10 of its first
80 bits, from a list of 1,024 short English words that differ in their first four letters. To find
another key with the same eight words takes about 2**80 tries.
"""

from __future__ import annotations

import hashlib

COUNT, _BITS = 8, 10
_SPELT = b"cloister/b1/words\0"


def words_of(key: str) -> str:
    """The eight words of a public key given in hex, with spaces between."""
    number = int.from_bytes(fingerprint(key)[:10], "big")
    places = (number >> (_BITS * (COUNT - 1 - place)) & 1023 for place in range(COUNT))
    return " ".join(WORDS[place] for place in places)


def fingerprint(key: str) -> bytes:
    """The 32 bytes that the words begin."""
    return hashlib.sha256(_SPELT + bytes.fromhex(key)).digest()


def same_words(given: str, key: str) -> bool:
    """Whether someone's words are the key's; capitals and spaces do not count."""
    return given.lower().split() == words_of(key).split()


_LIST = """
abbey acid acorn actor adder admit adobe adult aerial agent agile aisle alarm album alcove algae alibi alley
almond alpine altar amber amble amino amount anchor angle annex answer anthem antler anvil apex apple apron
arbor arcade arch arctic arena argue aroma arrow artist ascent aspen asset atlas atom attic auburn audio
aunt author autumn avenue award awning axis axle azure baboon bacon badge bagel bakery ball balsam bamboo
banana banjo banner barber bark barley barrel basil basket beach beaver beetle beige belfry berry birch
bison blaze blimp blue bobcat bolt book border botany bottle bowl brandy brave bread breeze brick bridge
bronze broom bubble bucket budget bugle bulb bumper bundle bunker burrow butler button buyer cabin cable
cactus cadet cafe calf camel camp canal candle canoe canvas canyon carbon cargo carol carpet cart castle
cavern cedar celery cello cement census center cereal chair chalk charm cheese chef cherry chess chisel
chorus cider cinema circle citrus city clam clerk cliff clock cloud clover club coach coal cobalt cobra
cocoa coffee cold collar comet copper cork cotton cougar court cousin cowboy crab cradle crane crater crayon
cream crest crocus crow cube cuckoo custom cycle cymbal dahlia dairy dance dapper dawn debut decade deer
delta denim depot desert desk detail dial diary diesel digit dime dinner discus ditch diver dock doctor
domain domino donkey door double dough dove dragon drama drawer dress drift drum duet dune dwarf dynamo
eager eagle early earth easel east echo eclair edge editor effort eight elbow elder empire enamel engine
enigma ensign envoy epic equal eraser errand escort essay estate ether event exact exit expert extra fabric
facade falcon family fancy farm fathom faucet fedora fellow fence fennel fern fiber fiddle field film finch
finger fish five flag flame flask fleet flint flour flower fluid flute focus folder forest fort fossil
fresco frog frost fruit fudge future gadget galaxy gallop gander garage garden garlic garnet gate gecko
genius gentle geyser giant gift glad glass glider globe glory goat goblet golf goose gopher gorge gospel
gown grain grape gravy green grill grotto group grove guava guest guide guitar gull guru gypsum habit hail
halo hammer hangar hare hatch hawk hazel heart heath helium helmet hemp herald herb hermit heron hill hinge
hippo hobby hockey holly home honey hood horn hotel hound hour house human humble hunter hurdle husk hyena
hymn ibex icicle icon idea idle idol igloo iguana image impact import income index indigo infant ingot inlet
insect invent iris island item ivory jacket jade jaguar jargon jazz jeans jelly jersey jester jewel jigsaw
jingle joke juggle juice jumbo junior jury kale karate kayak kebab kelp kernel kettle khaki kidney kilo
kimono kind kiosk kite kitten kiwi knee knife knight knob koala label lace lagoon lamb land laser lasso
laurel lava leaf league leek legend lemon lens lentil lesson letter lever lilac lily linden lion liquid list
liter lizard llama local locket locust lodge logic lotus lounge lucky lumber lunar lunch lung lynx lyric
macaw machine magma magnet magpie maid major mallet mammoth mantle maple marble margin market marmot marsh
mask mason matrix meadow measure medal melon memory menu mercury merit mesa meteor midday mile mimic mineral
mint minute mirror model moment monarch month moon morning mosaic moss motor muffin mural muscle museum
music mussel mustard muzzle mystic myth napkin native nature navy nebula neck nectar needle neon nephew
nerve nest neutral nickel niece nimble nine noble noise nomad noodle north nougat novel nozzle nugget nurse
nutmeg nylon oasis object oboe ocean ocelot octave octopus odor office ogre olive omega omelet onion onyx
opal open opera optic orange orbit orchard organ oriole osprey ostrich otter ounce outfit owner oxide oxygen
oyster ozone paddle page pagoda paint palace palm papaya paper parade parcel parrot parsley partner pasta
path patrol pause peacock peanut pear pebble pecan pelican penguin pepper perch perfume petal phantom phone
photo piano pickle picnic picture pigeon pillow pilot pioneer pipe pirate pixel pizza planet plaster plate
plaza plum poem polar pollen polo pond poppy possum potato pottery powder prairie prawn prince prism prize
profit prose proud prune public pudding pulley pump pupil puppet purple pyramid python quail quart queen
query quick quiet quill quince quiver quiz quota rabbit raccoon rack radar radio raft railway raisin ranch
random ranger rapid rattle raven ravine razor recipe record reed regal region relay relic remedy rent report
reptile rescue resin result reward rhino rhubarb rhyme ribbon ring ripple rivet road robin robot rodeo
romance roof rookie rope route rover royal ruby rudder ruffle ruler rumba runway rust safari saffron saga
salad salmon salt salute sample sandal sapling sardine satin sauce sauna savanna scale scarf scene school
science scooter scout screen script scroll segment senator senior sentry sequel serpent seven shadow shark
shawl shed sheep shelf sherbet shield ship shirt shovel shrimp shrub siege sienna signal silk silver siren
sister sketch skill skunk slope sloth snail snow soap soccer social sofa soldier sonata sonnet source south
space spaniel sparrow sphere spider spinach spiral spoon sport spring spruce square squid stable stadium
stage stamp star statue steam steel step stereo stone stork straw street studio sugar suit sulfur summer
supper surf swallow swan sweater swift sword syrup system taco tadpole tailor talent talon tango tank target
tarpon tartan taxi teacher teal teapot tempo terrace textile theater theme thermal thimble thistle three
throne thumb thunder ticket tide tiger timber tinsel titan toast tobacco today tomato tongue tool topaz
torch tornado total toucan towel tractor trade trail trellis trial tribe trident trio trophy trout truck
trumpet tuba tulip tundra tunnel turban turkey turnip turtle tutor tuxedo twelve twenty twig tycoon typist
ukulele uncle under unit update uranium urchin usher utensil utopia vacuum valid valve vanilla vapor vase
vault vector velvet vendor venture verse vessel veteran viaduct victory video village vinegar violin viper
visa visit vivid voice volcano volume vortex voucher voyage vulture waffle wagon waiter walnut walrus waltz
warbler wasp wave weekend welcome well whale wheat wheel whisk white wick wigwam wild window winter wire
wisdom wombat world worm wreath wren wrist yacht yard yeti yoga yogurt yolk young yucca zebra zenith zephyr
zero zigzag zinc zither zodiac
"""

WORDS = tuple(_LIST.split())
