#include "village.h"

// The notation is in grammar.h. No line may be the beginning of another line of its rule, whatever
// is drawn inside; grammar_prefix_free checks it. That is why lines end with what closes them.
//
//   A B C  people    P Q  places      L  A's trade     D E  looks     O G  goods
//   T      tense     N    number      R  rhyme         S U  the person who acts, and the other one
//   X Y Z  food      I J  digits of a year
const struct grammar_line village_lines[] = {
    {"document", 17,
     "<T:when> <A:name>, a <look> <L:trade> of <P:place>, $T.3 a <D:look> <O:goods>; "
     "<B:name>, $A.3 <kin>, $T.3 <N:count> <E:look> <G:goods>$N.1.\n"
     "<sentence> <sentence> <sentence> <sentence><tale>"},
    {"document", 12,
     "Dear <C:name>,\n<T:when> <A:name> and <B:name> $T.4 a <D:look> <O:goods> in "
     "<P:place>. <sentence> <sentence> <sentence><letter>"},
    {"document", 12,
     "Chronicle of <P:place>, 1<I:digit><J:digit>0\n<T:when> <A:name> and <B:name> "
     "$T.4 a <D:look> <O:goods>.\n<day><day><day><day><chronicle>"},
    {"document", 24,
     "Ledger of <A:name>, <L:trade> of <P:place>, for <B:name> and <C:name>\n"
     "<entry><entry><entry><entry><entry><entry><ledger>"},
    {"document", 7,
     "To feed <A:name> of <P:place>, take <N:count> <look> <X:food>$N.1, <many> <hue> "
     "<Y:food>s and <many> <look> <Z:food>s.\n<step> <step> <step><recipe>"},
    {"document", 28,
     "In the <spot> of <A:name> [the <L:trade>]: <stored>; <stored>; <stored>; "
     "<stored>; <stored>; <stored>; <stored>; <stored>; <stored><store>"},
    {"document", 12,
     "Song of <P:place>\n<note><note><note><note><tune><couplet>O $P, my <D:look> <O:goods>!\n"
     "<couplet><couplet>O $P, my $D $O!\n<song>"},
    {"document", 4,
     "<A:name> meets <B:name> at the <spot> of <P:place>.\n<talk><talk><talk><talks>"},

    // What happens in tales, letters and chronicles: needs A, B, O and T.
    {"tale", 4, " <sentence><tale>"},
    {"tale", 2, "\n<sentence><tale>"},
    {"tale", 2, "\nSo ends the tale of $A the $L and that $O.\n"},
    {"tale", 1, "\nThus $B $T.3 the $E $G$N.1, and $A of $P the $O.\n"},
    {"letter", 4, " <sentence><letter>"},
    {"letter", 2, "\nGreet the <look> <trade> of <Q:place>, $C!\nYour <kin> in $P\n"},
    {"day", 1, "<month> <tens><digit>: <sentence>\n"},
    {"chronicle", 3, "<day><chronicle>"},
    {"chronicle", 2, "Signed, <C:name> of $P, 1$I$J0\n"},
    {"sentence", 12, "<who> <act>"},
    {"sentence", 5, "At <digit>:<tens><digit> <who> <act>"},
    {"sentence", 4, "In the <look> <spot> <who> <act>"},
    {"sentence", 1, "The <item> $T.2 <mood>, so <who> <act>"},
    {"sentence", 1, "That $O $T.2 <look>!"},
    {"who", 3, "<S=A><U=B>$A"},
    {"who", 2, "<S=B><U=A>$B"},
    {"act", 4, "<deed><stop>"},
    {"act", 1, "<voice>$T.1: \"<speech>\""},
    {"deed", 10, "<work>$T.1 <thing>"},
    {"deed", 3, "<move>$T.1 to the <look> <spot>"},
    {"deed", 2, "<meet>$T.1 <other>"},
    {"deed", 1, "$T.2 <mood>"},
    {"stop", 3, "."},
    {"stop", 5, " and <deed>."},
    {"stop", 7, ", <deed> and <deed>."},
    {"stop", 1, ", for $S.1 $T.2 <mood>."},
    {"stop", 2, " <how>."},
    {"stop", 2, " (<aside>)."},
    {"aside", 3, "<deed> too"},
    {"aside", 2, "$U $T.3 <thing>"},
    {"aside", 2, "<work>$T.1 <thing> [<aside>]"},
    {"other", 3, "$U"},
    {"other", 3, "the <look> <trade>"},
    {"other", 1, "$S.3 <look> <kin>"},
    {"thing", 5, "a <item>"},
    {"thing", 4, "<many> <item>s"},
    {"thing", 2, "$S.3 <item>"},
    {"thing", 1, "that $O"},
    {"thing", 2, "a full <goods> of <hue> <food>s"},
    {"item", 3, "<goods>"},
    {"item", 3, "<look> <goods>"},
    {"item", 3, "<hue> <goods>"},
    {"item", 4, "<look> <hue> <goods>"},
    {"speech", 4, "$U, <order>!"},
    {"speech", 1, "Where is that $O?"},
    {"speech", 5, "I <order> and <order>."},
    {"speech", 3, "My <kin> said: '<order>.'"},
    {"order", 4, "<work> <mine>"},
    {"order", 2, "<move> to the <look> <spot>"},
    {"order", 1, "<meet> the <look> <trade>"},
    {"mine", 3, "the <item>"},
    {"mine", 2, "my <item>"},
    {"mine", 3, "<many> <item>s"},

    // Ledgers.
    {"entry", 3, "<month> <tens><digit> <debtor> <digit><digit> <item>s, <price>\n"},
    {"entry", 1, "- $B <work>ed <N:count> <item>$N.1 ($N.3 $N.2 <look>), <price>\n"},
    {"debtor", 3, "$B"},
    {"debtor", 2, "$C"},
    {"price", 3, "<digit>s <digit>d"},
    {"price", 2, "<digit><digit>d"},
    {"ledger", 3, "<entry><ledger>"},
    {"ledger", 2, "In $P, <month> <tens><digit>, $A\n"},

    // Recipes.
    {"step", 3, "<cook> the <what> with <many> <hue> <food>s in a <item>."},
    {"step", 2, "Add <many> <look> <hue> <food>s."},
    {"step", 1, "Salt the <what> <how>."},
    {"what", 1, "$X$N.1"},
    {"what", 1, "$Y"},
    {"what", 1, "$Z"},
    {"recipe", 2, " <step><recipe>"},
    {"recipe", 2, "\nServe $A the $X$N.1 and <many> <look> <food>s.\n"},

    // Stores: brackets in brackets.
    {"stored", 4, "<item>"},
    {"stored", 5, "<digit><digit> <item>s"},
    {"stored", 1, "box (<stored><round>"},
    {"stored", 1, "chest [<stored><square>"},
    {"stored", 1, "bag {<stored><curly>"},
    {"round", 2, ", <stored><round>"},
    {"round", 3, ")"},
    {"square", 2, ", <stored><square>"},
    {"square", 3, "]"},
    {"curly", 2, ", <stored><curly>"},
    {"curly", 3, "}"},
    {"store", 2, "; <stored><store>"},
    {"store", 1, ". Kept by $A.\n"},

    // Songs.
    {"tune", 6, " <note><note><note><note><tune>"},
    {"tune", 1, "\n"},
    {"couplet", 1, "The <item> is <look> by the <R:rhyme>,\n<verse>"},
    {"couplet", 1, "I <work> <many> <item>s at the <R:rhyme>,\n<verse>"},
    {"verse", 1, "and <many> <item>s <move> to the $R.1.\n"},
    {"verse", 1, "you <work> a <item> and <move> to the $R.1.\n"},
    {"song", 1, "<couplet>O $P, my $D $O!\n"},
    {"song", 1, "(Sung by the <look> <trade> of $P.)\n"},

    // Talk: each answer takes up its question.
    {"talk", 2,
     "$A: Where is the <D:look> <O:goods>?\n$B: The $D $O is <near> the <look> <spot>.\n"},
    {"talk", 1, "$A: Who <work>ed my <O:goods>?\n$B: The <look> <trade> has your $O.\n"},
    {"talk", 2,
     "$B: Give me <N:count> <D:look> <O:goods>$N.1, $A!\n$A: No, $B, $N.3 $N.4 <look>.\n"},
    {"talks", 2, "<talk><talks>"},
    {"talks", 2, "Farewell, $A! Farewell, $B of $P!\n"},

    // Words. People: name, she, her, her. Times: ending, was, had, had. Counts: plural, was, it,
    // is.
    {"name", -8,
     "Ada|she|her|her, Tom|he|him|his, Mara|she|her|her, Ned|he|him|his, "
     "Ivy|she|her|her, Hugh|he|him|his, Lena|she|her|her, Bram|he|him|his, "
     "Rosa|she|her|her, Carl|he|him|his, Nora|she|her|her, Olaf|he|him|his, "
     "Faye|she|her|her, Gus|he|him|his, Una|she|her|her, Piet|he|him|his"},
    {"place", -6,
     "Ashby, Brook, Elm Hill, Dunmere, Fenton, Marsh End, Oakley, Ryton, Stowe, "
     "Thorn, Wick, Kelby"},
    {"when", -3,
     "Long ago|ed|was|had|had, Today|s|is|has|have, Last year|ed|was|had|had, "
     "Now|s|is|has|have"},
    {"count", -3,
     "one||was|it|is, two|s|were|they|are, three|s|were|they|are, "
     "five|s|were|they|are, six|s|were|they|are, nine|s|were|they|are"},
    {"many", -6, "two, three, four, five, six, seven, eight, nine, ten, twelve, forty, fifty"},
    {"digit", -12, "1, 2, 4, 3, 6, 5, 8, 7, 9, 0"},
    {"tens", -3, "1, 2, 0"},
    {"month", -6, "May, Jun, Jul, Mar, Apr, Aug, Sep, Oct, Feb, Jan, Nov, Dec"},
    {"trade", -6,
     "miller, baker, smith, weaver, piper, sailor, farmer, potter, priest, clerk, "
     "cook, hunter, fisher, joiner"},
    {"kin", -4, "friend, cousin, guest, pupil, rival, lodger"},
    {"look", -20,
     "small, big, cold, warm, thin, soft, dark, round, wet, dry, new, fine, loud, pale, "
     "kind, long, rare, tall, flat, neat, bent, rich, dull, plain, mad, torn, fat, sly, raw, "
     "cheap, hot, lean, weak"},
    {"hue", -10, "red, blue, green, white, gold, black, grey, tin, silk, clay, wool, brass"},
    {"mood", -5, "sad, glad, tired, lost, brave, hungry, proud, calm, late, poor"},
    {"goods", -30,
     "hen, hat, cup, pot, key, lamp, rope, boat, cart, goat, cow, pig, dog, cat, drum, "
     "bell, book, ring, stone, spoon, pan, nail, map, net, bed, chair, bowl, jar, jug, "
     "sack, tub, fork, sled, wheel, horn, broom, duck, kite, rug, wig, log, vest, sock, "
     "saw, pen, nest, lid, plate, mug, fan, cane, toy, gem, rod"},
    {"food", -10,
     "plum, pear, fig, nut, leek, bean, carrot, turnip, cake, crab, lemon, date, herb, "
     "snail"},
    {"spot", -12,
     "barn, mill, river, market, church, forest, bridge, well, inn, garden, hill, "
     "tower, field, shore, gate, kitchen, pond, camp, cave, lane, yard, moor"},
    {"move", -6, "walk, row, crawl, return, sail, wander, climb, limp"},
    {"work", -16,
     "mend, paint, lift, clean, want, guard, count, load, need, pack, fill, sort, hunt, "
     "kick, pull, trust, oil, lock, roll, gild, heat, own, boil, test, soak, turn, "
     "pawn, rent, melt, burn, dust, crack, hoard"},
    {"meet", -6, "greet, help, visit, follow, thank, join, warn, fear, obey"},
    {"voice", -6, "call, ask, answer, shout, whisper"},
    {"how", -5, "again, slowly, in May, at noon, alone, gladly, by night"},
    {"near", -5, "by, in, under, behind, near"},
    {"cook", -6, "Boil, Chop, Fry, Wash, Roast, Mash"},
    {"note", -8, "c, e, g, d, a, f, b"},
    {"rhyme", -8,
     "stone|bone, tree|sea, lake|snake, moon|spoon, rain|grain, sky|pie, bell|well, "
     "door|shore, wall|hall, king|ring, mouse|house, light|night"},
};

const int village_line_count = sizeof village_lines / sizeof village_lines[0];
